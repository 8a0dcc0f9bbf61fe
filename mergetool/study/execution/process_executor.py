"""Worker processes on this machine, each with a model of its own and, where there are GPUs, with a GPU of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from mergetool.study.candidates.candidate import Candidate
from mergetool.study.execution.evaluator import Evaluator
from mergetool.study.execution.scheduler import Executor, Lost, Row
from mergetool.study.recipe.study_recipe import StudyRecipe


class ProcessExecutor(Executor):
    """A pool of one process for each seat, so that one that dies takes no other candidate with it.

    Args:
        evaluator: of the study.
        size: processes.
    """

    def __init__(self, evaluator: Evaluator, size: int) -> None:
        super().__init__(evaluator, size)
        self._pools: dict[int, ProcessPoolExecutor] = {}
        self._visible = [devices_of(seat, evaluator.device) for seat in range(size)]

    def _submit(self, seat: int, candidate: Candidate) -> Future:
        if seat not in self._pools:
            made = self.evaluator
            # spawn: a forked child would inherit torch's threads in a state that hangs
            self._pools[seat] = ProcessPoolExecutor(
                1,
                multiprocessing.get_context("spawn"),
                _begin,
                (made.recipe, made.out, made.fresh, made.device, made.dtype, self.size, self._visible[seat]),
            )
        with _without_working_directory():  # the pool starts its process here
            return self._pools[seat].submit(_row, candidate)

    def _wait(self, handles: list[Future]) -> list[Future]:
        return list(wait(handles, return_when=FIRST_COMPLETED)[0])

    def _result(self, handle: Future) -> Row:
        try:
            return handle.result()
        except BrokenProcessPool:
            raise Lost("") from None

    def _renew(self, seat: int) -> None:
        self._pools.pop(seat).shutdown(wait=False)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools.values():
            pool.shutdown(wait=True)


@contextlib.contextmanager
def _without_working_directory() -> Iterator[None]:
    """Python programs that are started here look for no module in the working directory."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        os.environ.pop("PYTHONSAFEPATH")
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before


def devices_of(seat: int, device: str | None) -> str | None:
    """What CUDA_VISIBLE_DEVICES is to be for a seat, so that neighbours get different GPUs; None: as it is.

    A trainer takes every GPU that it sees, and by the name "cuda" all workers would share the first; so each sees one.

    Args:
        seat: number of the worker.
        device: what the user asked for; a certain one (`cuda:1`) stays what it is.
    """
    import torch

    if device not in (None, "cuda") or (count := torch.cuda.device_count()) < 2:
        return None
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = [one.strip() for one in named.split(",")][:count] if named else [str(one) for one in range(count)]
    return seen[seat % len(seen)]


_EVALUATOR: Evaluator | None = None
"""In a worker: made once, so that the live model and the tokenised rows serve all its candidates."""


def _begin(
    recipe: StudyRecipe,
    out: Path,
    fresh: bool,
    device: str | None,
    dtype: str | None,
    workers: int,
    visible: str | None,
) -> None:
    import threading

    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible  # before anything asks for a GPU
    import torch

    global _EVALUATOR
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    _EVALUATOR = Evaluator(recipe, out, fresh, device, dtype)


def _end_with_parent() -> None:
    """A worker whose parent was killed would train on for nobody; what it was training resumes in the next run."""
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _row(candidate: Candidate) -> dict[str, Any]:
    assert _EVALUATOR is not None
    return _EVALUATOR.row(candidate)
