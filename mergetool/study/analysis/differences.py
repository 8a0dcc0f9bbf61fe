"""Every comparison of a study: differences between groups on the same rows, with intervals over rows and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mergetool.evaluate.paired import Difference, Drawn, difference, interpolated, over_draws
from mergetool.study.analysis.groups import Group, good
from mergetool.study.analysis.row_scores import RowScores
from mergetool.study.recipe.columns import Column

YARDSTICK = "the interpolation front at the same reward"


class Differences:
    """What row scores say of groups; each metric of each group is drawn once.

    Args:
        groups: of the study.
        columns: of the study.
        row_scores: candidate -> its scores row by row; those that were measured before these were kept are not there.
    """

    def __init__(self, groups: Sequence[Group], columns: Sequence[Column], row_scores: Mapping[str, RowScores]) -> None:
        self._groups = {one.name: one for one in groups}
        self._columns = {one.name: one for one in columns}
        self._rows = row_scores
        self._drawn: dict[tuple[str, str, str], Drawn | None] = {}

    def without_rows(self) -> list[str]:
        """Candidates that were measured before scores were kept row by row."""
        return [name for one in self._groups.values() for name in one.members if name not in self._rows]

    def drawn(self, group: str, column: str, split: str) -> Drawn | None:
        """A metric of a group in every draw; None where its rows were not kept, or are none."""
        key = group, column, split
        if key not in self._drawn:
            self._drawn[key] = self._draw(*key)
        return self._drawn[key]

    def _draw(self, group: str, column: str, split: str) -> Drawn | None:
        members = self._groups[group].members if group in self._groups else ()
        found = [self._rows.get(name, {}).get(split, {}).get(column) for name in members]
        kept = [one for one in found if one is not None]
        if not kept or len(kept) < len(members) or len({len(one.columns[0]) for one in kept}) > 1:
            return None
        entry = column.rpartition(".")[0]
        statistic = self._columns[column].metric.statistic
        return over_draws([one.columns for one in kept], statistic, kept[0].clusters, f"{entry} {split}")

    def between(self, one: str, other: str, column: str, split: str) -> Difference | None:
        """One group's score less another's; None where either's rows are not there, or are not the same."""
        mine, theirs = self.drawn(one, column, split), self.drawn(other, column, split)
        if mine is None or theirs is None or mine.rows != theirs.rows:
            return None
        return difference(mine, theirs)

    def from_front(self, group: str, points: Sequence[str], reward: Column, column: Column, split: str) -> Difference | None:
        """A group's score less that of a front of others at the group's own reward.

        Args:
            points: the front's groups; between two of them the line is drawn.

        Returns:
            None where the front has no such reward, or rows are not there.
        """
        at, mine = self.drawn(group, reward.name, split), self.drawn(group, column.name, split)
        xs = [self.drawn(name, reward.name, split) for name in points]
        ys = [self.drawn(name, column.name, split) for name in points]
        across, up = [one for one in xs if one is not None], [one for one in ys if one is not None]
        if at is None or mine is None or len(across) < len(points) or len(up) < len(points) or len(points) < 2:
            return None
        theirs = interpolated(at, across, up)
        return None if theirs is None else difference(mine, theirs)


def front_of(groups: Sequence[Group], ends: Sequence[Group], reward: Column, tax: Column, split: str) -> list[str]:
    """The groups that an interpolation front goes through: those that none of them beats on both axes."""

    def place(group: Group) -> tuple[float, float]:
        return good(reward, group.scores[split][reward.name].mean), good(tax, group.scores[split][tax.name].mean)

    return pareto([(one.name, *place(one)) for one in [*groups, *ends]])


def pareto(points: list[tuple[str, float, float]]) -> list[str]:
    """Names of the points that no other point beats, in order of the first coordinate; more is better in both."""
    front: list[str] = []
    best = float("-inf")
    for name, _, second in sorted(points, key=lambda point: (-point[1], -point[2])):
        if second > best:
            front.append(name)
            best = second
    return front[::-1]


Compared = dict[str, dict[str, dict[str, Difference]]]
"""group -> what it is compared with -> column -> the difference."""


def compare_all(
    found: Differences,
    groups: Sequence[Group],
    columns: Sequence[Column],
    axes: tuple[Column, Column],
    rlhf: str | None,
    against: str,
    split: str,
) -> Compared:
    """Each group against SFT, against RLHF, and against the front of the family `against` at its own reward.

    The front's ends are SFT and RLHF. Members of that family, and the study's models, are not held against it. What
    cannot be compared is left out.
    """
    reward, tax = axes
    ends = [one for one in groups if one.name in ("sft", rlhf)]
    yardstick = [one for one in groups if one.family == against]
    points = front_of(yardstick, ends, reward, tax, split) if yardstick else []
    compared: Compared = {}
    for group in groups:
        for other in ("sft", rlhf):
            if other is None or other == group.name or all(one.name != other for one in groups):
                continue
            for column in columns:
                if away := found.between(group.name, other, column.name, split):
                    compared.setdefault(group.name, {}).setdefault(other, {})[column.name] = away
        if not points or group in yardstick or group in ends or group.name == "base":
            continue
        for column in columns:
            if column != reward and (away := found.from_front(group.name, points, reward, column, split)):
                compared.setdefault(group.name, {}).setdefault(against, {})[column.name] = away
    return compared
