"""A run of any algorithm that the kernel has killed ends, when it is run again, at the bytes of a run that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mergetool.align import align, align_recipe
from mergetool.align.algorithms import ALGORITHMS
from tests.align.test_run import weights
from tests.align.tiny import recipe_of

ELSEWHERE = {"dpo", "ipo", "kto", "sft", "grpo", "raft"}  # stopped in test_run and test_sampling
QUICK = {"rloo"}  # a process of its own takes its time to import TRL
MERGING = {"method": "onties", "density": 0.5, "alpha": 1e-2, "every": 2}

RUN = """
import json, os, signal, sys
import torch
from mergetool.align import align, align_recipe

torch.set_num_threads(1)

def die(event, facts):
    if event == "step" and facts["step"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)

align(align_recipe(json.loads(sys.argv[2]), sys.argv[1]), sys.argv[3], report=die)
"""


@pytest.mark.parametrize(
    "algorithm",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.long]) for name in ALGORITHMS if name not in ELSEWHERE],
)
def test_a_run_that_the_kernel_kills_resumes_to_the_same_bytes(taught, tmp_path, algorithm: str) -> None:
    values = recipe_of(taught, algorithm, merging=MERGING, training={"max_steps": 4, "save_steps": 2})
    recipe, out = align_recipe(values, taught), tmp_path / "out"
    here = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", RUN, str(taught), json.dumps(values), str(out)]
    dying = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": here}, stderr=subprocess.PIPE, text=True)
    whole = align(recipe, tmp_path / "whole")
    assert dying.wait() == -signal.SIGKILL, dying.communicate()[1]
    assert not out.exists()
    again = align(recipe, out)
    assert (again.resumed_from, again.metrics) == (2, whole.metrics)
    assert weights(out) == weights(tmp_path / "whole")
    assert whole.merging["merges"] == 2
