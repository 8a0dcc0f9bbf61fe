"""What a choice maximises on the validation rows, as one number a group, with its draws."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from mergetool.evaluate.paired import Difference, Drawn, combined, difference
from mergetool.study.analysis.differences import Differences
from mergetool.study.analysis.groups import Group, good
from mergetool.study.recipe.columns import Column


class Criterion(ABC):
    """More is better.

    Attributes:
        words: what it is called in a sentence; short: where it has been called so before.
    """

    words: str
    short: str

    sign: float = 1.0
    """What turns a difference into one of the metric's own number."""

    @abstractmethod
    def value(self, group: Group) -> float:
        """As measured."""

    @abstractmethod
    def drawn(self, group: Group) -> Drawn | None:
        """In every draw; None where rows are not there."""

    def between(self, one: Group, other: Group) -> Difference | None:
        """One group's value less another's, on the same rows."""
        mine, theirs = self.drawn(one), self.drawn(other)
        return None if mine is None or theirs is None else difference(mine, theirs)


class OneMetric(Criterion):
    """A metric, turned so that more is better."""

    def __init__(self, column: Column, split: str, found: Differences) -> None:
        self._column, self._split, self._found = column, split, found
        self.words = self.short = column.name
        self.sign = good(column, 1.0)

    def value(self, group: Group) -> float:
        return good(self._column, group.scores[self._split][self._column.name].mean)

    def drawn(self, group: Group) -> Drawn | None:
        drawn = self._found.drawn(group.name, self._column.name, self._split)
        return None if drawn is None else combined([drawn], [self.sign])


class MeanShare(Criterion):
    """The mean over metrics of how far a group is from the worst of the inputs (0) to the best of them (1).

    A metric in which the inputs cannot be told apart is no scale: there the unit is the smallest difference that would
    have been seen, so that a loss counts and noise does not.

    Args:
        columns: the metrics, each counting as much as every other.
        inputs: the models that are merged.
        split: of the rows that scale and values are taken on.
        found: differences of the study.
        scaled_on: the split whose inputs set worst and best; the validation rows, so that test rows set nothing.
    """

    def __init__(
        self, columns: Sequence[Column], inputs: Sequence[Group], split: str, found: Differences, scaled_on: str
    ) -> None:
        self._metrics = [OneMetric(column, split, found) for column in columns]
        scales = [_ends(OneMetric(column, scaled_on, found), inputs) for column in columns]
        self._scales = [1 / (width * len(columns)) for _, width in scales]
        self._shift = -sum(low * scale for (low, _), scale in zip(scales, self._scales, strict=True))
        self.words = "mean share of the best input over " * (len(columns) > 1) + " and ".join(one.name for one in columns)
        self.short = "mean share" if len(columns) > 1 else columns[0].name

    def value(self, group: Group) -> float:
        values = [metric.value(group) for metric in self._metrics]
        return self._shift + sum(value * scale for value, scale in zip(values, self._scales, strict=True))

    def drawn(self, group: Group) -> Drawn | None:
        parts = [metric.drawn(group) for metric in self._metrics]
        kept = [part for part in parts if part is not None]
        return combined(kept, self._scales, self._shift) if len(kept) == len(parts) else None


def _ends(metric: OneMetric, inputs: Sequence[Group]) -> tuple[float, float]:
    """(worst, width) of the inputs on a metric."""
    from mergetool.evaluate.paired import least_seen

    ranked = sorted(inputs, key=metric.value)
    low, high = metric.value(ranked[0]), metric.value(ranked[-1])
    away = metric.between(ranked[-1], ranked[0])
    return low, max(high - low, least_seen(away) if away else 0.0, 1e-9)
