"""A share of the fuzzer's cases, another seed each day; `make fuzz` runs all of them and keeps what falls."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_of_todays_cases_every_one_is_a_success_or_one_line(tmp_path: Path) -> None:
    cases = os.environ.get("FUZZ_CASES", "40")
    words = [sys.executable, "-m", "tests.fuzz", "--cases", cases, "--quick", "--processes", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\nthe seed is today's date"
