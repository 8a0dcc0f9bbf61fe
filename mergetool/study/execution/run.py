"""Runs a study: whatever is not in results.jsonl yet, one candidate after the other or several at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergetool import hub
from mergetool.errors import MergetoolError, OutputError
from mergetool.study.analysis.choose import Summary, summarise
from mergetool.study.analysis.row_scores import RowScores
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.execution.evaluator import Evaluator
from mergetool.study.execution.results import RESULTS, ROWS, Results
from mergetool.study.execution.scheduler import Executor, InProcess, Progress, schedule
from mergetool.study.execution.search import searches
from mergetool.study.recipe.columns import SPLITS, columns
from mergetool.study.recipe.study_recipe import StudyRecipe
from mergetool.version import __version__


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Attributes:
        rows: one line of results.jsonl per candidate, in the study's order; a search's trials come last.
        candidates: what they are, in the same order.
        summary: groups, front and choice.
        out: the directory.
        ran: how many candidates this call made and measured; the others were there.
        failures: (candidate, error line) of those that could not be measured.
        bugs: whether a failure is ours and not the user's input.
        seconds: of this call.
    """

    rows: list[dict[str, Any]]
    candidates: list[Candidate]
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
    workers: int | None = None,
    ray: str | None = None,
) -> StudyResult:
    """Makes and measures every candidate.

    Args:
        recipe: the study.
        out: directory for results.jsonl and the aligned checkpoints; made if need be.
        fresh: measure and train everything anew.
        progress: told what is being done.
        device, dtype: of the model that is measured; see `mergetool.hub.loading.load_model`.
        workers: candidates made at the same time, each in a process of its own with its own model in memory, and on a GPU
            of its own where there are several. None: one; on a Ray cluster one for each GPU, or for each node.
        ray: address of a Ray cluster that makes the candidates: "local", "auto" or HOST:PORT.

    Raises:
        MergetoolError: the study itself cannot be run: the SFT model, the data or the output directory. What goes
            wrong with one candidate is in the result instead.
    """
    began = time.monotonic()
    out = Path(out)
    _must_be_ours(out)
    evaluator = Evaluator(recipe, out, fresh, device, dtype)
    out.mkdir(parents=True, exist_ok=True)
    results = Results(out / RESULTS, fresh)
    rows: dict[str, dict[str, Any]] = {}
    row_scores: dict[str, RowScores] = {}

    wanted = [column.name for column in columns(recipe)]

    def measured(row: dict[str, Any]) -> bool:
        return all(name in row["scores"].get(split, ()) for split in SPLITS for name in wanted)

    def known(candidate: Candidate) -> dict[str, Any] | None:
        about = evaluator.about(candidate)
        found = results.done(about["key"])
        if found is None and not about["error"]:
            found = results.done(evaluator.legacy_key(candidate))
        if found and not measured(found):
            found = None  # the line was damaged, or tells of other metrics
        if found:
            row_scores.pop(candidate.name, None)
            if kept := results.row_scores.get(found["key"]):
                row_scores[candidate.name] = kept
            rows[candidate.name] = {**found, **about}  # the same weights may have another name by now
        return rows.get(candidate.name) if found else None

    def record(candidate: Candidate, row: dict[str, Any]) -> list[Candidate]:
        stamp = {"version": __version__, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        if kept := row.get(ROWS):
            row_scores[row["name"]] = kept
        line = results.add({**row, **stamp})
        rows[row["name"]] = line
        return [more for search in searching for more in search.told(candidate, row)]

    searching = searches(recipe, known)
    missing = [one for one in evaluator.candidates if known(one) is None]
    missing += [one for search in searching for one in search.next()]
    missing = _with_their_runs(evaluator, missing)
    ran = 0
    if missing:
        try:
            executor = _executor(evaluator, len(missing) if not searching else None, workers, ray)
        except MergetoolError:
            if not any(out.iterdir()):
                out.rmdir()  # nothing was begun
            raise
        try:
            ran = schedule(evaluator, missing, executor, record, progress or (lambda done, total, what: None))
        finally:
            executor.close()
    candidates = evaluator.candidates + [one for search in searching for one in search.candidates]
    ordered = [rows[one.name] for one in candidates]
    failed = [row for row in ordered if row["error"]]
    return StudyResult(
        ordered,
        candidates,
        summarise(recipe, candidates, ordered, row_scores),
        out,
        ran,
        [(row["name"], row["error"]) for row in failed],
        any(row.get("bug") for row in failed),
        time.monotonic() - began,
    )


def _with_their_runs(evaluator: Evaluator, missing: list[Candidate]) -> list[Candidate]:
    """Candidates whose scores are known come along where another needs their checkpoint and it is not there any more."""
    found = {one.name: one for one in missing}
    asked = list(missing)
    while asked:
        for one in asked.pop().sources.values():
            if one.name not in found and one.checkpoint(evaluator.workspace) is None:
                found[one.name] = one
                asked.append(one)
    names = {one.name for one in missing}
    return [one for one in found.values() if one.name not in names] + missing


def _executor(evaluator: Evaluator, most: int | None, workers: int | None, ray: str | None) -> Executor:
    """Who makes the candidates; `most` of them can be in work at a time."""
    evaluator.recipe.pin(hub.pins())  # workers read the commits that were checked
    if ray is not None:
        from mergetool.study.execution.ray_executor import RayExecutor

        return RayExecutor(evaluator, ray, workers)
    count = min(workers or 1, most or workers or 1)
    if count > 1:
        from mergetool.study.execution.process_executor import ProcessExecutor

        return ProcessExecutor(evaluator, count)
    return InProcess(evaluator)


_OF_STUDIES = (RESULTS, "candidates", "plan.json")
"""What says that a directory is a study's: its results, its trainings, or the plan of a pick that has none yet."""


def _must_be_ours(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file", "give a directory")
    if out.exists() and any(out.iterdir()) and not any((out / name).exists() for name in _OF_STUDIES):
        raise OutputError(f"{out}: holds something that is not a study", "give a new directory, or that of an earlier run")
