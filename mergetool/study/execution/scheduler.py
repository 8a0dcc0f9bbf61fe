"""Candidate scheduler for in-process, multi-process and Ray execution.

A candidate waits until the run that it needs has been made. A worker that dies costs its own candidate one more try.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from mergetool.errors import MergetoolError
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.execution.evaluator import Evaluator

Row = dict[str, Any]
Progress = Callable[[int, int, str], None]
"""Receives (candidates done, candidates in all, what is being done)."""
TRIES = 2


class Lost(Exception):
    """The worker that had a candidate is gone."""


class Executor(ABC):
    """Seats that each make one candidate at a time.

    Args:
        evaluator: of the study.
        size: seats.
    """

    def __init__(self, evaluator: Evaluator, size: int) -> None:
        self.evaluator, self.size = evaluator, size
        self.tell: Callable[[str], None] = lambda what: None
        """Told what a candidate is at; of a worker elsewhere nothing is heard."""
        self._free = list(range(size))
        self._busy: dict[Any, tuple[int, Candidate, int]] = {}

    def start(self, candidate: Candidate) -> None:
        """Gives a candidate to a free seat."""
        self._give(self._free.pop(0), candidate, 1)

    def _give(self, seat: int, candidate: Candidate, attempt: int) -> None:
        self._busy[self._submit(seat, candidate)] = (seat, candidate, attempt)

    def finished(self) -> list[tuple[Candidate, Row]]:
        """Waits until one is made, or more; each with its line of results.

        Raises:
            Exception: the SFT model could not be measured.
        """
        found: list[tuple[Candidate, Row]] = []
        while self._busy and not found:
            for handle in self._wait(list(self._busy)):
                seat, candidate, attempt = self._busy.pop(handle)
                try:
                    row = self._result(handle)
                except Lost as loss:
                    self._renew(seat)
                    if attempt < TRIES:
                        self._give(seat, candidate, attempt + 1)
                        continue
                    row = self._gone(candidate, str(loss))
                self._free.append(seat)
                self._free.sort()
                found.append((candidate, row))
        return found

    def _gone(self, candidate: Candidate, how: str) -> Row:
        what = f"its worker died {TRIES} times{f' ({how})' if how else ''}"
        if candidate.name == "sft":
            raise MergetoolError(f"sft: {what}", "give each worker more memory: fewer --workers, or a smaller --dtype")
        return {**self.evaluator.about(candidate), "error": f"{what}; most often memory ran out: try fewer --workers"}

    @abstractmethod
    def _submit(self, seat: int, candidate: Candidate) -> Any:
        """Starts the work; returns a handle."""

    @abstractmethod
    def _wait(self, handles: list[Any]) -> list[Any]:
        """Waits for the first of them; returns those that are done."""

    @abstractmethod
    def _result(self, handle: Any) -> Row:
        """The line of results; raises Lost where the worker died."""

    @abstractmethod
    def _renew(self, seat: int) -> None:
        """Puts a new worker into a seat whose worker died."""

    @abstractmethod
    def close(self) -> None:
        """Ends all workers."""


class InProcess(Executor):
    """This process, one candidate after the other."""

    def __init__(self, evaluator: Evaluator) -> None:
        super().__init__(evaluator, 1)

    def _submit(self, seat: int, candidate: Candidate) -> Any:
        self._held = candidate
        return candidate.name

    def _wait(self, handles: list[Any]) -> list[Any]:
        return handles

    def _result(self, handle: Any) -> Row:
        return self.evaluator.row(self._held, self.tell)

    def _renew(self, seat: int) -> None:
        raise AssertionError("this process is no worker that could be lost")

    def close(self) -> None:
        return


def schedule(
    evaluator: Evaluator,
    missing: list[Candidate],
    executor: Executor,
    record: Callable[[Candidate, Row], list[Candidate]],
    tell: Progress,
) -> int:
    """Makes all candidates, as many at a time as the executor has seats.

    Args:
        evaluator: of the study.
        missing: what is to be made; nothing that one of them needs may be missing elsewhere.
        executor: who makes them.
        record: is given each line of results at once; returns candidates to be made besides (a search's next ones).
        tell: told what is being done.

    Returns:
        How many were made.
    """
    waiting = {one.name: one for one in missing}
    running: dict[str, Candidate] = {}
    failed: set[str] = set()
    done = 0

    def take(candidate: Candidate, row: Row) -> None:
        nonlocal done
        done += 1
        if row["error"]:
            failed.add(candidate.name)
        waiting.update({one.name: one for one in record(candidate, row)})

    while waiting or running:
        for candidate in list(waiting.values()):
            needs = {one.name for one in candidate.sources.values()}
            if needs & failed:
                take(waiting.pop(candidate.name), _orphan(evaluator, candidate, min(needs & failed)))
            elif len(running) < executor.size and needs.isdisjoint(waiting) and needs.isdisjoint(running):
                running[candidate.name] = waiting.pop(candidate.name)
                executor.start(candidate)
        total = done + len(waiting) + len(running)
        tell(done, total, ", ".join(running))
        executor.tell = functools.partial(tell, done, total)
        for candidate, row in executor.finished():
            del running[candidate.name]
            take(candidate, row)
    return done


def _orphan(evaluator: Evaluator, candidate: Candidate, lacks: str) -> Row:
    """The line of a candidate whose run, or what else it is made of, could not be made."""
    what = candidate.run_is if candidate.needs == lacks else "what it is made of,"
    return {**evaluator.about(candidate), "error": f"{what} '{lacks}' could not be made; fix that first"}
