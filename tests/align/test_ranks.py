"""Two processes give the weights that one gives, and write one result."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml

from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.reader import Reader
from tests.align.tiny import recipe_text


@pytest.mark.dist
@pytest.mark.slow
def test_two_gloo_processes_give_the_weights_of_one(triple, tmp_path) -> None:
    import torch

    found = []
    for processes in (1, 2):
        # Plain SGD would compare the gradients as they are; Adam divides by their size, so eps is set above the noise.
        values = recipe_text(triple, merging={"method": "ondare", "density": 0.3, "alpha": 1e-2, "every": 2})
        values["training"] |= {"per_device_train_batch_size": 4 // processes, "adam_epsilon": 1e-3, "save_steps": 3}
        path, out = tmp_path / f"{processes}.yaml", tmp_path / str(processes)
        path.write_text(yaml.safe_dump(values))
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mergetool"]
        done = subprocess.run(
            [sys.executable, *(launch if processes == 2 else ["-m", "mergetool"]), "align", str(path), str(out)],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=280)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.split() == [str(out)]
        found.append(Reader(read_layout(out)))
    for name in found[0].layout.tensors:
        assert torch.allclose(found[0].tensor(name), found[1].tensor(name), rtol=0, atol=1e-6), name
