"""What measuring one candidate gives: its scores, the same row by row, its answers, and how far its weights have moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mergetool.evaluate.interval import Columns
from mergetool.evaluate.tasks import Prepared
from mergetool.study.analysis.row_scores import RowColumns


@dataclass
class Scored:
    """One candidate on both splits.

    Attributes:
        distances: model of the study -> norm of the weights' difference from it.
        scores: split -> `ENTRY.METRIC` -> value, low, high, n, left_out, and `by`, the value per category where rows say
            which they belong to, or per task of a group of benchmarks.
        rows: split -> `ENTRY.METRIC` -> its columns, an entry per row.
        samples: one for each answer that a metric read: split, entry, row (from 0), prompt, answer, and the metrics' scores.
    """

    distances: dict[str, float]
    scores: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    rows: dict[str, dict[str, RowColumns]] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, split: str, name: str, score: dict[str, Any], rows: Columns | None = None, clusters: tuple[int, ...] | None = None
    ) -> None:
        """One metric; `rows` is None where a score is no statistic of rows."""
        self.scores.setdefault(split, {})[name] = score
        kept = self.rows.setdefault(split, {})
        if rows is not None:
            kept[name] = RowColumns(tuple([float(value) for value in column] for column in rows), clusters)


def samples_of(split: str, prepared: Prepared, scores: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The answers that the metrics of a task read, each with its scores; empty where none reads answers."""
    reading = {name: score for name, score in scores.items() if "answers" in score}
    if not reading:
        return []
    answers = next(iter(reading.values()))["answers"]
    return [
        {
            "split": split,
            "entry": prepared.task.name,
            "row": at,
            "prompt": row["prompt"],
            "answer": answer,
            "scores": {name: score["rows"][0][at] / (score["rows"][1][at] or 1.0) for name, score in reading.items()},
        }
        for at, (row, answer) in enumerate(zip(prepared.rows, answers, strict=True))
    ]
