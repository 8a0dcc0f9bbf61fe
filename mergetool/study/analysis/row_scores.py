"""Scores row by row of one candidate: what differences between candidates are taken of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RowColumns:
    """What one metric keeps of each row of one split.

    Attributes:
        columns: what the metric's statistic is taken of; one list a number, one entry a row.
        clusters: which rows belong to one prompt or document; None where each stands for itself.
    """

    columns: tuple[list[float], ...]
    clusters: tuple[int, ...] | None = None

    def written(self) -> dict[str, Any]:
        """As JSON; a column that is one number throughout is written as that number."""
        rows = len(self.columns[0])
        columns = [one[0] if at and one == [one[0]] * rows else one for at, one in enumerate(self.columns)]
        return {"columns": columns, **({"clusters": list(self.clusters)} if self.clusters is not None else {})}

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> RowColumns:
        rows = len(written["columns"][0])
        columns = tuple(one if isinstance(one, list) else [one] * rows for one in written["columns"])
        clusters = written.get("clusters")
        return cls(columns, tuple(clusters) if clusters is not None else None)


RowScores = Mapping[str, Mapping[str, RowColumns]]
"""split -> `ENTRY.METRIC` -> its rows; a benchmark whose score is no mean over rows (BLEU) is not there."""


def written(scores: RowScores) -> dict[str, Any]:
    """As JSON."""
    return {split: {name: one.written() for name, one in found.items()} for split, found in scores.items()}


def read(kept: Mapping[str, Any]) -> RowScores:
    """What `written` gave."""
    return {split: {name: RowColumns.read(one) for name, one in found.items()} for split, found in kept.items()}
