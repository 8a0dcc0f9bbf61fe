"""The data of the metrics: read and tokenised once, and no row in both splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergetool.errors import DataError
from mergetool.evaluate.metrics import METRICS, Metric
from mergetool.evaluate.tasks import Prepared, Task, prepare
from mergetool.study.identity import data_identity, digest
from mergetool.study.recipe import MetricEntry, StudyRecipe

SPLITS = ("validation", "test")
SCORING = 1  # raised when the same candidate on the same rows would score differently: old results are then not reused


@dataclass(frozen=True)
class Column:
    """One metric of one entry, as results name it: `skills.nll`."""

    name: str
    side: str
    metric: Metric


def columns(recipe: StudyRecipe) -> list[Column]:
    """Every metric of a study in the recipe's order; the first of each side is that side's axis."""
    return [
        Column(f"{entry.label}.{name}", side, METRICS[name])
        for side in ("reward", "tax")
        for entry in getattr(recipe, side)
        for name in entry.metrics
    ]


def axes(recipe: StudyRecipe) -> tuple[Column, Column]:
    """Reward and tax of the picture, the choice and a search: the first metric of each side."""
    named = columns(recipe)
    return next(one for one in named if one.side == "reward"), next(one for one in named if one.side == "tax")


def entries(recipe: StudyRecipe) -> list[MetricEntry]:
    return [*recipe.reward, *recipe.tax]


def metrics_identity(recipe: StudyRecipe) -> str:
    """A hash of everything that decides what a score means: metrics, limits, data, and the reference."""
    parts: list[Any] = [SCORING]
    for entry in entries(recipe):
        settings = {**entry.model_dump(exclude={"data"}), "metrics": sorted(entry.metrics)}  # their order is a matter of taste
        parts.append([settings, [data_identity(recipe.source(getattr(entry.data, split))) for split in SPLITS]])
    return digest(parts)


def read_tasks(recipe: StudyRecipe) -> dict[str, list[Task]]:
    """The tasks of each split.

    Raises:
        DataError: a file is missing, empty or has an unusable row, or a row is in both splits of an entry.
    """
    found: dict[str, list[Task]] = {split: [] for split in SPLITS}
    for entry in entries(recipe):
        rows = {split: _rows(entry, recipe.source(getattr(entry.data, split))) for split in SPLITS}
        _no_row_in_both(entry, rows)
        for split in SPLITS:
            found[split].append(
                Task(
                    entry.label,
                    tuple(entry.metrics),
                    rows[split],
                    beta=entry.beta,
                    max_length=entry.max_length,
                    max_new_tokens=entry.max_new_tokens,
                    chat=entry.chat,
                    template=entry.template,
                )
            )
    return found


def _rows(entry: MetricEntry, source: Path | str) -> list[dict]:
    from mergetool.data import completions, preferences

    read = preferences if METRICS[entry.metrics[0]].rows == "preferences" else completions
    return read(source, entry.limit)


def _no_row_in_both(entry: MetricEntry, rows: dict[str, list[dict]]) -> None:
    keys = ("prompt", "chosen", "rejected", "completion")
    seen = {digest([row.get(key) for key in keys]) for row in rows["validation"]}
    shared = [at for at, row in enumerate(rows["test"], 1) if digest([row.get(key) for key in keys]) in seen]
    if shared:
        raise DataError(
            f"{entry.label}: {len(shared)} rows of the test split are in the validation split too "
            f"(the first is row {shared[0]} of {entry.data.test})",
            "what chooses must not report: give splits that share no row",
        )


def prepare_all(recipe: StudyRecipe, tokenizer: Any) -> dict[str, list[Prepared]]:
    """`read_tasks`, tokenised."""
    return {split: [prepare(task, tokenizer) for task in tasks] for split, tasks in read_tasks(recipe).items()}
