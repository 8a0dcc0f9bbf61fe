"""pareto.png: reward against tax on the test rows. Up and right are better, whatever the metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mergetool.study.analysis.choose import Summary
from mergetool.study.report.captions import draw_legend, draw_texts
from mergetool.study.report.picture_points import Point, bar_of, points_of, polylines
from mergetool.study.report.style import MODEL_COLOURS, axis_title, canvas, what_bars_are

SIZE = (11.0, 7.4)  # inches


def draw_pareto(summary: Summary, path: Path, title: str, split: str = "test") -> Path:
    """Writes the picture.

    Args:
        summary: of the study.
        path: of the PNG.
        title: the study's name.
        split: whose scores are drawn.

    Returns:
        `path`.
    """
    points = points_of(summary, split)
    with canvas(path, SIZE) as (figure, axes):
        drawn = _frame(axes, points, summary)
        _lines(axes, drawn)
        _markers(axes, drawn, summary)
        _front(axes, drawn, summary)
        _titles(axes, summary, title, split)
        draw_legend(axes, drawn, summary, split)
        figure.canvas.draw()
        draw_texts(figure, axes, drawn, summary)
    return path


def _frame(axes: Any, points: list[Point], summary: Summary) -> list[Point]:
    """Sets the limits. The base model is often far away: then it is named at the edge and not drawn."""
    near = [point for point in points if point.group.name != "base"]
    spans = []
    for pick in (lambda p: p.x, lambda p: p.y):
        means = [pick(point).mean for point in near]
        bars = [(pick(point).mean - bar_of(pick(point))[0], pick(point).mean + bar_of(pick(point))[1]) for point in near]
        # intervals of few rows may be wider than all that there is to see, and run out of the frame; seeds' bars less so
        most = (0.6 if any(pick(point).sd is not None for point in near) else 0.12) * (max(means) - min(means))
        low = max(min(bar[0] for bar in bars), min(means) - most)
        high = min(max(bar[1] for bar in bars), max(means) + most)
        room = (high - low) or abs(high) * 0.1 or 0.1
        spans.append((low - 0.09 * room, high + 0.11 * room, room))
    drawn = list(near)
    for point in points:
        if point.group.name != "base":
            continue
        far = any(
            not low - 0.2 * room < value < high + 0.2 * room
            for (low, high, room), value in zip(spans, (point.x.mean, point.y.mean), strict=True)
        )
        if far:
            axes.annotate(
                f"base lies outside, at ({point.x.mean:.3g}, {point.y.mean:.3g})",
                (0.01, 0.01),
                xycoords="axes fraction",
                color="#555555",
                fontsize=9,
            )
        else:
            drawn.append(point)
            spans = [
                (min(low, value - 0.06 * room), max(high, value + 0.06 * room), room)
                for (low, high, room), value in zip(spans, (point.x.mean, point.y.mean), strict=True)
            ]
    sides = ((summary.reward, spans[0], axes.set_xlim), (summary.tax, spans[1], axes.set_ylim))
    for column, (low, high, _), limit in sides:
        limit(*((low, high) if column.metric.higher_is_better else (high, low)))
    axes.grid(color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    return drawn


def _lines(axes: Any, points: list[Point]) -> None:
    for line in polylines(points):
        own = line[-2]  # a line along a training has SFT and the training itself at its ends
        online, part = "every" in own.group.settings, own.group.part_of is not None
        axes.plot(
            [p.x.mean for p in line],
            [p.y.mean for p in line],
            color=own.colour,
            zorder=2,
            linewidth=1.6 if online else 1.2 if part else 0.9,
            alpha=0.75 if online else 0.6 if part else 0.5,
            linestyle="-" if online else ":" if part else (0, (4, 2)),
        )


def _markers(axes: Any, points: list[Point], summary: Summary) -> None:
    for point in points:
        seeds = point.x.sd is not None
        axes.errorbar(
            point.x.mean,
            point.y.mean,
            xerr=[[side] for side in bar_of(point.x)],
            yerr=[[side] for side in bar_of(point.y)],
            color=point.colour,
            alpha=0.12 if point.group.trial else 0.3,
            linewidth=1.0 if seeds else 0.6,
            capsize=0,
            zorder=1,
        )
        big = point.colour in MODEL_COLOURS
        axes.scatter(
            point.x.mean,
            point.y.mean,
            s={"*": 190}.get(point.marker, 110) if big else 32 if point.group.trial else 46,
            color=point.colour,
            marker=point.marker,
            edgecolors="white",
            linewidths=0.3 if point.group.trial else 0.7,
            zorder=5 if big else 4,
        )
        if point.group.name == summary.choice.group:
            axes.scatter(point.x.mean, point.y.mean, s=230, facecolors="none", edgecolors="black", linewidths=1.5, zorder=6)


def _front(axes: Any, points: list[Point], summary: Summary) -> None:
    by_name = {point.group.name: point for point in points}
    front = [by_name[name] for name in summary.front if name in by_name]
    axes.plot(
        [p.x.mean for p in front],
        [p.y.mean for p in front],
        color="#999999",
        linewidth=5,
        alpha=0.35,
        zorder=1.5,
        solid_capstyle="round",
    )


def _titles(axes: Any, summary: Summary, title: str, split: str) -> None:
    axes.set_xlabel(f"reward: {axis_title(summary.reward)}    better →", fontsize=11)
    axes.set_ylabel(f"tax: {axis_title(summary.tax)}    better →", fontsize=11)
    axes.set_title(f"{title}\n{split} rows; {what_bars_are(summary)}", fontsize=11, loc="left", linespacing=1.4)
