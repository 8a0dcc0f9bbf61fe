"""Some rows of a task: measured for those who compare before all rows are."""

from __future__ import annotations

from dataclasses import replace

from mergetool.evaluate import Reference
from mergetool.evaluate.interval import Columns
from mergetool.evaluate.tasks import Prepared
from mergetool.study.analysis.row_scores import RowColumns


def part_of(prepared: Prepared, reference: Reference | None, start: int, stop: int) -> tuple[Prepared | None, Reference | None]:
    """A task's first metric on rows from `start` to `stop`, and what the SFT model makes of these; None where none is left."""
    if start >= min(stop, len(prepared.rows)):
        return None, None
    some = slice(start, stop)
    part = replace(
        prepared,
        task=replace(prepared.task, metrics=prepared.task.metrics[:1]),
        rows=prepared.rows[some],
        pairs=prepared.pairs[some],
        completions=prepared.completions[some],
        prompts=prepared.prompts[some],
    )
    if reference is None:
        return part, None
    scores, answers = reference.log_probs, reference.answers
    return part, replace(
        reference,
        log_probs=None if scores is None else (scores[0][some], scores[1][some]),
        answers=None if answers is None else answers[some],
    )


def rows_after(before: RowColumns | None, columns: Columns) -> RowColumns:
    """New rows behind those that were measured before."""
    new = [[float(value) for value in column] for column in columns]
    if before is not None:
        new = [[*old, *more] for old, more in zip(before.columns, new, strict=True)]
    return RowColumns(tuple(new))
