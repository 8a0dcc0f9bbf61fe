"""Runs a study: whatever is not in results.jsonl yet, one candidate after the other or several at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergetool import __version__
from mergetool.errors import OutputError
from mergetool.study.candidates import Candidate
from mergetool.study.choose import Summary, summarise
from mergetool.study.maker import Maker
from mergetool.study.recipe import StudyRecipe
from mergetool.study.results import Results

RESULTS = "results.jsonl"
Progress = Callable[[int, int, str], None]
"""Receives (candidates done, candidates in all, what is being done)."""


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Attributes:
        rows: one line of results.jsonl per candidate, in the study's order.
        summary: groups, front and choice.
        out: the directory.
        ran: how many candidates this call made and measured; the others were there.
        failures: (candidate, error line) of those that could not be measured.
        bugs: whether a failure is ours and not the user's input.
        seconds: of this call.
    """

    rows: list[dict[str, Any]]
    summary: Summary
    out: Path
    ran: int
    failures: list[tuple[str, str]] = field(default_factory=list)
    bugs: bool = False
    seconds: float = 0.0


def run_study(
    recipe: StudyRecipe,
    out: str | Path,
    fresh: bool = False,
    progress: Progress | None = None,
    device: str | None = None,
    dtype: str | None = None,
    workers: int = 1,
) -> StudyResult:
    """Makes and measures every candidate.

    Args:
        recipe: the study.
        out: directory for results.jsonl and the aligned checkpoints; made if need be.
        fresh: measure and train everything anew.
        progress: told what is being done.
        device, dtype: of the model that is measured; see `mergetool.evaluate.run.load_model`.
        workers: candidates made at the same time, each in a process of its own with its own model in memory.

    Raises:
        MergetoolError: the study itself cannot be run: the SFT model, the data or the output directory. What goes
            wrong with one candidate is in the result instead.
    """
    began = time.monotonic()
    out = Path(out)
    _must_be_ours(out)
    maker = Maker(recipe, out, fresh, device, dtype)
    out.mkdir(parents=True, exist_ok=True)
    results = Results(out / RESULTS, fresh)
    rows: dict[str, dict[str, Any]] = {}
    missing = []
    for candidate in maker.candidates:
        about = maker.about(candidate)
        if found := results.done(about["key"]):
            rows[candidate.name] = {**found, **about}  # the same weights may have another name by now
        else:
            missing.append(candidate)
    tell = progress or (lambda done, total, what: None)
    made = (
        _one_by_one(maker, missing, tell)
        if workers <= 1 or len(missing) <= 1
        else _side_by_side(maker, missing, tell, min(workers, len(missing)), (device, dtype))
    )
    for row in made:
        stamp = {"version": __version__, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        results.add({**row, **stamp})
        rows[row["name"]] = row
    ordered = [rows[one.name] for one in maker.candidates]
    failed = [row for row in ordered if row["error"]]
    return StudyResult(
        ordered,
        summarise(recipe, maker.candidates, ordered),
        out,
        len(missing),
        [(row["name"], row["error"]) for row in failed],
        any(row.get("bug") for row in failed),
        time.monotonic() - began,
    )


def _must_be_ours(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file", "give a directory")
    if out.exists() and any(out.iterdir()) and not (out / RESULTS).exists() and not (out / "candidates").exists():
        raise OutputError(f"{out}: holds something that is not a study", "give a new directory, or that of an earlier run")


def _without_rlhf(maker: Maker, candidate: Candidate) -> dict[str, Any]:
    """The line of a merge whose RLHF model could not be made."""
    return {**maker.about(candidate), "error": f"its RLHF model '{candidate.needs}' could not be made; mend that first"}


def _one_by_one(maker: Maker, missing: list[Candidate], tell: Progress) -> Iterator[dict[str, Any]]:
    failed: set[str] = set()
    for at, candidate in enumerate(missing):
        row = (
            _without_rlhf(maker, candidate)
            if candidate.needs in failed
            else maker.row(candidate, lambda what, at=at: tell(at, len(missing), what))
        )
        if row["error"]:
            failed.add(candidate.name)
        yield row


def _side_by_side(
    maker: Maker, missing: list[Candidate], tell: Progress, workers: int, measuring: tuple[str | None, str | None]
) -> Iterator[dict[str, Any]]:
    """Rows as they are finished. A merge waits until its RLHF model has been made."""
    import multiprocessing
    from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

    waiting = {one.name: one for one in missing}
    running: dict[Future, Candidate] = {}
    failed: set[str] = set()
    done = 0
    # spawn: a forked child would inherit torch's threads in a state that hangs
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _begin, (maker.recipe, maker.out, maker.fresh, *measuring, workers)
    )
    try:
        while waiting or running:
            for candidate in list(waiting.values()):
                if candidate.needs in failed:
                    done += 1
                    yield _without_rlhf(maker, waiting.pop(candidate.name))
                elif candidate.needs not in waiting and candidate.needs not in {one.name for one in running.values()}:
                    running[pool.submit(_row, waiting.pop(candidate.name).name)] = candidate
            tell(done, len(missing), ", ".join(one.name for one in list(running.values())[:workers]))
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                candidate = running.pop(future)
                row = future.result()
                done += 1
                if row["error"]:
                    failed.add(candidate.name)
                yield row
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_MAKER: Maker | None = None
"""In a worker process: made once, so that the live model and the tokenised rows serve all its candidates."""


def _begin(recipe: StudyRecipe, out: Path, fresh: bool, device: str | None, dtype: str | None, workers: int) -> None:
    import os
    import threading

    import torch

    global _MAKER
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    _MAKER = Maker(recipe, out, fresh, device, dtype)


def _end_with_parent() -> None:
    """A worker whose parent was killed would train on for nobody; what it was training resumes in the next run."""
    import multiprocessing
    import os
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _row(name: str) -> dict[str, Any]:
    assert _MAKER is not None
    return _MAKER.row(_MAKER.by_name[name])
