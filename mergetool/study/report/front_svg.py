"""The front as SVG inside the report: hover or focus tells a candidate's scores and differences, a click opens its recipe.

Drawn here and not by a library: the smallest that would do (Vega, ECharts, Plotly) are 0.8 to 4.5 MB in every report, and
what is needed is points, lines and a title for each. It follows the page's colours, dark or light.
"""

from __future__ import annotations

import math
from typing import Any

from mergetool.study.analysis.choose import Summary
from mergetool.study.analysis.doubts import shown
from mergetool.study.recipe.columns import Column
from mergetool.study.report.choice_words import compared_with
from mergetool.study.report.picture_points import Point, bar_of, points_of, polylines
from mergetool.study.report.style import MODEL_COLOURS, axis_title

WIDTH, HEIGHT = 900, 520
LEFT, RIGHT, TOP, BOTTOM = 78, 20, 16, 56
_TICKS = 6


def front_svg(summary: Summary, split: str = "test") -> dict[str, Any]:
    """What the template draws.

    Returns:
        width, height and the frame; x and y: title and ticks (place, text); lines: points of each polyline and its colour;
        front: the same of the Pareto front; points: place, bars, colour, whether it is a model, chosen, its name and
        `told`, the lines about it; outside: the base model where it is too far away to be drawn.
    """
    points = points_of(summary, split)
    near = [one for one in points if one.group.name != "base"]
    across = _Axis(summary.reward, [one.x.mean for one in near], LEFT, WIDTH - RIGHT)
    up = _Axis(summary.tax, [one.y.mean for one in near], HEIGHT - BOTTOM, TOP)
    drawn = [one for one in points if across.holds(one.x.mean) and up.holds(one.y.mean)]

    def place(point: Point) -> tuple[float, float]:
        return across.at(point.x.mean), up.at(point.y.mean)

    by_name = {one.group.name: one for one in drawn}
    front = [place(by_name[name]) for name in summary.front if name in by_name]
    kept = set(by_name)
    lines = [line for line in polylines(points) if all(one.group.name in kept for one in line)]
    numbers = {group.name: at for at, group in enumerate(summary.groups, 1)}
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "frame": (LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM),
        "x": {"title": axis_title(summary.reward), "ticks": across.ticks()},
        "y": {"title": axis_title(summary.tax), "ticks": up.ticks()},
        "lines": [{"points": _joined([place(one) for one in line]), "colour": line[-2].colour} for line in lines],
        "front": _joined(front),
        "points": [_point(one, place(one), across, up, summary, numbers[one.group.name], split) for one in drawn],
        "outside": [one.group.name for one in points if one not in drawn],
    }


class _Axis:
    """Values to pixels; better is right, and up.

    Args:
        column: of the values.
        values: that must be seen.
        start, end: pixels where the worse end and the better end are.
    """

    def __init__(self, column: Column, values: list[float], start: float, end: float) -> None:
        room = (max(values) - min(values)) or abs(values[0]) * 0.1 or 0.1
        low, high = min(values) - 0.06 * room, max(values) + 0.06 * room
        self._low, self._high = low, high
        self._worse, self._better = (low, high) if column.metric.higher_is_better else (high, low)
        self._start, self._end = start, end

    def holds(self, value: float) -> bool:
        return self._low <= value <= self._high

    def at(self, value: float) -> float:
        share = (value - self._worse) / (self._better - self._worse)
        return round(self._start + share * (self._end - self._start), 1)

    def clipped(self, value: float) -> float:
        return self.at(min(max(value, self._low), self._high))

    def ticks(self) -> list[tuple[float, str]]:
        """Round numbers, at most `_TICKS` or so."""
        rough = (self._high - self._low) / _TICKS
        power = 10 ** math.floor(math.log10(rough))
        step = next(one * power for one in (1, 2, 5, 10) if one * power >= rough)
        first, count = math.ceil(self._low / step), math.floor(self._high / step)
        digits = max(0, -math.floor(math.log10(step)))
        return [(self.at(at * step), f"{at * step:.{digits}f}") for at in range(first, count + 1)]


def _joined(places: list[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in places)


def _point(
    point: Point, place: tuple[float, float], across: _Axis, up: _Axis, summary: Summary, number: int, split: str
) -> dict[str, Any]:
    (left, right), (down, above) = bar_of(point.x), bar_of(point.y)
    x, y = point.x.mean, point.y.mean
    model = point.colour in MODEL_COLOURS
    return {
        "x": place[0],
        "y": place[1],
        "bars": [
            (across.clipped(x - left), place[1], across.clipped(x + right), place[1]),
            (place[0], up.clipped(y - down), place[0], up.clipped(y + above)),
        ],
        "colour": None if model else point.colour,
        "model": model,
        "chosen": point.group.name == summary.choice.group,
        "name": point.group.name,
        "text": point.text,
        "number": number,
        "told": _told(point, summary, split),
    }


def _told(point: Point, summary: Summary, split: str) -> list[str]:
    """Scores and differences of one candidate, a line each."""
    scores = point.group.scores[split]
    lines = []
    for column in summary.columns:
        score = scores[column.name]
        spread = f" ± {score.sd:.3f} over {len(point.group.members)} seeds" if score.sd is not None else ""
        lines.append(f"{column.name} {score.mean:.3f}{spread}")
    of_group = summary.differences.get(split, {}).get(point.group.name, {})
    for key, title, columns in compared_with(summary):
        some = [f"{one.name} {shown(of_group[key][one.name])}" for one in columns if one.name in of_group.get(key, {})]
        if some:
            lines.append(f"{title}: {', '.join(some)}")
    return lines
