"""A share of the harness's rounds, another seed each day; `make faults` runs all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_of_todays_disturbed_merges_every_one_ends_in_the_same_bytes(tmp_path: Path) -> None:
    chosen = ["merge", "sharded merge", "sweep", "two at once"]
    words = [sys.executable, "-m", "tests.faults", "--rounds", "4", "--processes", "1"]
    words += [word for name in chosen for word in ("--only", name)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\nthe seed is today's date"
