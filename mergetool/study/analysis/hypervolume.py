"""How much of the box between SFT and RLHF a set of models covers: the hypervolume of its Pareto front.

The reference point is the worse of the study's two models on each axis: SFT's reward and RLHF's tax where alignment
raised the one and cost the other. It is the same for every family. The box reaches from there to the better of the two
on each axis, that is to RLHF's reward without any tax. So SFT and RLHF alone cover nothing of it, points on the straight
line between them cover half in the limit, a free lunch all of it, and what goes beyond both models more than all.

Own code, some twenty lines: Optuna's is private (`optuna._hypervolume`) and an extra, and two dimensions are a sum of
rectangles. A test compares the two.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from mergetool.study.analysis.choose import Summary
from mergetool.study.analysis.groups import Group, good
from mergetool.study.recipe.columns import Column

Point = tuple[float, float]


@dataclass(frozen=True)
class Cover:
    """What a family covers.

    Attributes:
        family: its name; "" for all candidates together.
        points: how many groups it has; more points cover more, so families of very different size are no fair match.
        area: in the product of the two axes' units.
        share: of the box between SFT and RLHF; None where one of them is better on both axes, so that nothing is traded.
        sd: of the share over seeds, each seed's points alone; None where not every group has the same seeds, or one.
    """

    family: str
    points: int
    area: float
    share: float | None
    sd: float | None = None


def hypervolume(points: Iterable[Point], reference: Point) -> float:
    """The area that lies below some point and above the reference, more being better in both coordinates.

    Args:
        points: any, beaten ones too; those that are worse than the reference in a coordinate add nothing.
        reference: the corner.

    Source: Zitzler and Thiele 1998, "Multiobjective optimization using evolutionary algorithms".
    """
    area, height = 0.0, reference[1]
    for x, y in sorted(points, key=lambda point: (-point[0], -point[1])):  # from the right: each adds what is above
        if x > reference[0] and y > height:
            area += (x - reference[0]) * (y - height)
            height = y
    return area


def corners(summary: Summary, split: str = "test") -> tuple[Point, Point] | None:
    """The box between SFT and RLHF: (reference point, ideal point), turned so that more is better; None without RLHF.

    Where one of the two is the better one on both axes there is nothing to trade, and the box is empty: both corners are
    the reference point.
    """
    ends = [group for name in ("sft", summary.rlhf) if name and (group := summary.group(name))]
    if len(ends) < 2:
        return None
    (x, y), (other_x, other_y) = (_point(group, summary, split) for group in ends)
    reference = min(x, other_x), min(y, other_y)
    if (other_x - x) * (other_y - y) >= 0:
        return reference, reference
    return reference, (max(x, other_x), max(y, other_y))


def covers(summary: Summary, split: str = "test") -> list[Cover]:
    """What each family covers, and all together at the end; empty without an RLHF model to span the box."""
    box = corners(summary, split)
    if box is None:
        return []
    families: dict[str, list[Group]] = {}
    for group in summary.groups:
        if group.name not in ("sft", "base", summary.rlhf):
            families.setdefault(group.family, []).append(group)
            families.setdefault("", []).append(group)
    order = [name for name in families if name] + ([""] if families else [])
    return [_cover(name, families[name], summary, box, split) for name in order]


def _cover(family: str, groups: list[Group], summary: Summary, box: tuple[Point, Point], split: str) -> Cover:
    reference, ideal = box
    whole = (ideal[0] - reference[0]) * (ideal[1] - reference[1])
    area = hypervolume([_point(group, summary, split) for group in groups], reference)
    seeds = {len(group.members) for group in groups}
    sd = None
    if len(seeds) == 1 and (count := seeds.pop()) > 1 and whole:
        each = [hypervolume([_point(group, summary, split, at) for group in groups], reference) for at in range(count)]
        sd = statistics.stdev(each) / whole
    return Cover(family, len(groups), area, area / whole if whole else None, sd)


def _point(group: Group, summary: Summary, split: str, seed: int | None = None) -> Point:
    def of(column: Column) -> float:
        score = group.scores[split][column.name]
        return good(column, score.mean if seed is None else score.values[seed])

    return of(summary.reward), of(summary.tax)


def shown_cover(cover: Cover) -> str:
    """`62 % ± 3`, or the area where there is no box."""
    if cover.share is None:
        return f"{cover.area:.3g}"
    return f"{cover.share:.0%}" + (f" ± {100 * cover.sd:.0f}" if cover.sd is not None else "")


def cover_sentence(summary: Summary) -> str:
    """One line for the terminal; empty where there is nothing to compare."""
    found = covers(summary)
    if not found:
        return ""
    what = "share of the box between SFT and RLHF" if found[0].share is not None else "area, for there is no tax to be spared"
    each = ", ".join(f"{cover.family or 'all together'} {shown_cover(cover)}" for cover in found)
    return f"Hypervolume on the test rows ({what}): {each}."


def as_facts(summary: Summary) -> dict[str, Any]:
    """Plain values, for JSON; reference and ideal in the axes' own units."""
    box = corners(summary)
    if box is None:
        return {"reference": None, "ideal": None, "families": []}
    sides = (summary.reward, summary.tax)
    reference, ideal = ([good(column, value) for column, value in zip(sides, point, strict=True)] for point in box)
    return {"reference": reference, "ideal": ideal, "families": [asdict(cover) for cover in covers(summary)]}
