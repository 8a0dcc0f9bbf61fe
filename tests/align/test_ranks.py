"""Two processes give the weights that one gives, and write one result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mergetool.align import align, load_align_recipe
from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.reader import Reader
from tests.align.tiny import recipe_text

ONDARE = {"method": "ondare", "density": 0.3, "alpha": 1e-2, "every": 2}
SETS = {"data": ["lab:skills_validation", "lab:sft_train"], "limit": 10, "max_length": 64}
ROWS = {"data": "lab:skills_validation", "limit": 16, "max_length": 64}


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize(
    ("merging", "sharded"),
    [
        pytest.param(ONDARE, False, id="ondare-ddp", marks=pytest.mark.long),
        pytest.param(ONDARE, True, id="ondare-fsdp2"),
        pytest.param({**ONDARE, "method": "onties"}, False, id="onties-ddp"),
        pytest.param({**ONDARE, "method": "onties"}, True, id="onties-fsdp2"),
        pytest.param({"method": "replay", "rows": ROWS, "batch_size": 4}, False, id="replay-ddp"),
        pytest.param(
            {"method": "lwf", "rows": ROWS, "lambda": 10.0, "batch_size": 4}, True, id="lwf-fsdp2", marks=pytest.mark.long
        ),
        pytest.param({"method": "ewc", "rows": ROWS, "lambda": 100.0}, True, id="ewc-fsdp2", marks=pytest.mark.long),
        pytest.param({"method": "bema", "since": 1, "every": 2}, True, id="bema-fsdp2", marks=pytest.mark.long),
        pytest.param({"method": "ogpsa", "rows": SETS, "project": "update", "every": 4}, False, id="ogpsa-ddp"),
    ],
)
def test_two_gloo_processes_give_the_weights_of_one(tmp_path, merging: dict, sharded: bool) -> None:
    import torch

    for processes in (1, 2):
        # Adam divides by the size of a gradient, so eps is set above the noise that another order of sums makes.
        values = recipe_text(tmp_path, merging=dict(merging))
        if "batch_size" in merging:  # of each process
            values["merging"]["batch_size"] = merging["batch_size"] // processes
        values |= {"base_model": "lab:base", "sft_model": "lab:sft", "out_dtype": "float32"}
        values["data"] = {"train": "lab:preferences_train", "limit": 24, "max_length": 128}
        values["training"] |= {"per_device_train_batch_size": 4 // processes, "adam_epsilon": 1e-3, "save_steps": 3}
        (tmp_path / f"{processes}.yaml").write_text(yaml.safe_dump(values))
    align(load_align_recipe(tmp_path / "1.yaml"), tmp_path / "1")
    program = [str(Path(__file__).with_name("fsdp_on_cpu.py"))] if sharded else ["-m", "mergetool"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, *program, "align", str(tmp_path / "2.yaml"), str(tmp_path / "2")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [str(tmp_path / "2")]
    one, two = (Reader(read_layout(tmp_path / name)) for name in ("1", "2"))
    for name in one.layout.tensors:
        assert torch.allclose(one.tensor(name), two.tensor(name), rtol=0, atol=1e-6), name
