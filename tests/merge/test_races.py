"""Several runs at once, killed at any moment: the output is whole or not there, and nobody's work is lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from mergetool.checkpoint.working_directory import lock_file, partial_directory
from mergetool.errors import MergetoolError
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
from tests.helpers import write_triple

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_triple(tmp_path_factory.mktemp("in"), torch.bfloat16)


def merge(inputs: dict[str, Path], out: Path, slowly: float = 0.0) -> None:
    models = [{"model": str(inputs[name]), "parameters": {"weight": 0.5}} for name in ("sft", "rlhf")]
    plan = plan_merge(MergeRecipe(merge_method="linear", models=models))
    merge_to_directory(plan, out, threads=1, progress=(lambda *_: time.sleep(slowly)) if slowly else None)


def child(work: Callable[[], None], log: Path) -> int:
    """A process that works; it writes its error line, and exits with 2 for an error of the user's, 1 for a bug."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except MergetoolError as error:
        log.write_text(str(error))
        code = 2
    except BaseException as error:
        log.write_text(f"bug: {error!r}")
    finally:
        os._exit(code)


def whole(out: Path) -> dict[str, str]:
    return {p.name: sha256(p.read_bytes()).hexdigest() for p in sorted(out.iterdir())}


def test_of_five_runs_into_one_output_it_is_whole_and_the_others_say_so(inputs: dict[str, Path], tmp_path: Path) -> None:
    merge(inputs, tmp_path / "want")
    want, rng = whole(tmp_path / "want"), random.Random(0)
    said: set[str] = set()
    for at in range(6):
        folder = tmp_path / str(at)
        folder.mkdir()

        def work(folder: Path = folder, pause: float = 0.0) -> None:
            time.sleep(pause)
            merge(inputs, folder / "out")

        pids = [
            child(lambda pause=rng.uniform(0, 0.1), work=work: work(pause=pause), tmp_path / f"{at}-{k}.log") for k in range(5)
        ]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        logs = [path.read_text() for path in tmp_path.glob(f"{at}-*.log")]
        assert 0 in codes
        assert set(codes) <= {0, 2}, logs
        assert all("another run is writing it now" in log for log in logs), logs
        assert [p.name for p in folder.iterdir()] == ["out"]
        assert whole(folder / "out") == want
        said |= {str(code) for code in codes}
    assert "0" in said


def test_a_run_that_is_killed_in_the_middle_leaves_its_work_to_the_next_of_many(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    merge(inputs, tmp_path / "want")
    out = tmp_path / "folder" / "out"
    journal, lines = partial_directory(out) / "journal.jsonl", 0
    pid = child(lambda: merge(inputs, out, slowly=0.05), tmp_path / "first.log")
    while lines < 4:
        time.sleep(0.01)
        with contextlib.suppress(OSError):
            lines = len(journal.read_text().splitlines())
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert lock_file(out).exists()  # left by the killed one, and taken over
    assert not out.exists()
    pids = [child(lambda: merge(inputs, out), tmp_path / f"{k}.log") for k in range(3)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert 0 in codes
    assert set(codes) <= {0, 2}
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    assert whole(out) == whole(tmp_path / "want")
