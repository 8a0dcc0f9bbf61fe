"""Processes give the same lines as one; each sees a GPU of its own and dies with its parent."""

import pytest

from mergetool.study import run_study
from mergetool.study.execution.process_executor import devices_of
from tests.study import tiny
from tests.study.execution.deadly import deadly, same_lines


@pytest.mark.parametrize(
    ("count", "named", "device", "expected"),
    [
        (0, None, None, [None, None]),
        (1, None, None, [None, None]),
        (2, None, None, ["0", "1"]),
        (2, "6,7", "cuda", ["6", "7"]),
        (2, "GPU-a, GPU-b", None, ["GPU-a", "GPU-b"]),
        (2, None, "cuda:1", [None, None]),
        (2, None, "cpu", [None, None]),
    ],
)
def test_each_worker_sees_a_gpu_of_its_own(monkeypatch, count, named, device, expected):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert [devices_of(seat, device) for seat in range(2)] == expected
    if count == 2 and device is None and named is None:
        assert devices_of(2, device) == "0", "three workers on two GPUs: the third shares the first"


@pytest.mark.slow
def test_two_processes_give_the_same_lines_and_a_killed_one_is_replaced(folder, tmp_path):
    search = {
        "name": "found",
        "search": {"trials": 10, "batch": 2},
        "merge": {"merge_method": "ties", "weight": {"low": 0, "high": 1}, "density": 0.5},
    }
    study = deadly(folder, tmp_path, 1, search)
    result = run_study(study, tmp_path / "two", workers=2)
    assert (tmp_path / "tries").read_text() == "2"
    [(name, error)] = result.failures
    assert name == "deadly"
    assert "this time it only fails" in error
    same_lines(result, run_study(tiny.study(folder, candidates=[search]), tmp_path / "one"))


def test_a_worker_dies_with_its_parent(tmp_path):
    import subprocess
    import sys
    import time

    script = tmp_path / "parent.py"
    script.write_text("""
import multiprocessing, os, sys, threading, time
from mergetool.study.execution.process_executor import _end_with_parent

def work(file):
    threading.Thread(target=_end_with_parent, daemon=True).start()
    open(file, "w").write(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=work, args=(sys.argv[1],)).start()
""")
    note = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, str(script), str(note)])
    deadline = time.monotonic() + 120
    while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    pid = int(note.read_text())
    parent.kill()
    parent.wait()
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid):
    """Whether a process is there and not only waiting to be reaped."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
