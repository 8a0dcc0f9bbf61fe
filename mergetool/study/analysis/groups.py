"""Lines of results to groups: candidates that differ in their seed alone, with mean and spread."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from mergetool.study.candidates.candidate import Candidate
from mergetool.study.recipe.columns import SPLITS, Column


@dataclass(frozen=True)
class Score:
    """One metric of one group.

    Attributes:
        mean: over seeds, in the metric's unit.
        sd: sample standard deviation over seeds; None for one seed.
        low, high: 95 % bootstrap interval over rows, averaged over seeds.
        n: rows.
        values: one per seed.
    """

    mean: float
    sd: float | None
    low: float
    high: float
    n: int
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Group:
    """Candidates that differ in their seed alone.

    Attributes:
        name, family, settings: as of each member, see `Candidate`.
        members: names of the candidates.
        scores: split -> metric -> score.
        part_of: the group of the training that this is an earlier state of.
        trial: whether a search proposed it.
        is_model: whether it is one of the study's own models, see `Candidate`.
        remark: what the recipe alone does not say.
        distances: model of the study -> norm of the weights' difference from it, mean over seeds; empty where it was
            measured before distances were.
    """

    name: str
    family: str
    settings: dict[str, Any]
    members: tuple[str, ...]
    scores: dict[str, dict[str, Score]] = field(repr=False)
    part_of: str | None = None
    trial: bool = False
    is_model: bool = False
    remark: str = ""
    distances: dict[str, float] = field(default_factory=dict)


def good(column: Column, value: float) -> float:
    """A metric's value turned so that more is better."""
    return value if column.metric.higher_is_better else -value


def groups_of(candidates: list[Candidate], rows: list[dict[str, Any]], columns: list[Column]) -> list[Group]:
    """Groups in the study's order; candidates that failed are left out.

    Args:
        rows: one line of results per candidate, in the same order.
    """
    members: dict[str, list[tuple[Candidate, dict]]] = {}
    for candidate, row in zip(candidates, rows, strict=True):
        if not row.get("error"):
            members.setdefault(candidate.group, []).append((candidate, row))
    return [_group(name, found, columns) for name, found in members.items()]


def _group(name: str, found: list[tuple[Candidate, dict]], named: list[Column]) -> Group:
    first = found[0][0]
    scores = {
        split: {column.name: _score([row["scores"][split][column.name] for _, row in found]) for column in named}
        for split in SPLITS
    }
    distances = [row.get("distances") or {} for _, row in found]
    return Group(
        name,
        first.family,
        first.settings,
        tuple(one.name for one, _ in found),
        scores,
        first.part_of,
        first.trial is not None,
        first.is_model,
        first.remark,
        {
            model: statistics.fmean(one[model] for one in distances)
            for model in distances[0]
            if all(model in one for one in distances)
        },
    )


def _score(values: list[dict[str, Any]]) -> Score:
    means = [one["value"] for one in values]
    return Score(
        statistics.fmean(means),
        statistics.stdev(means) if len(means) > 1 else None,
        statistics.fmean(one["low"] for one in values),
        statistics.fmean(one["high"] for one in values),
        values[0]["n"],
        tuple(means),
    )
