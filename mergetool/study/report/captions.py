"""The words in the picture: the legend, and a text beside each point that has room."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from mergetool.study.analysis.choose import Summary
from mergetool.study.analysis.hypervolume import covers, shown_cover
from mergetool.study.report.label_placement import place_labels
from mergetool.study.report.picture_points import Point, bar_of, polylines
from mergetool.study.report.style import MODEL_COLOURS, colours


def draw_legend(axes: Any, points: list[Point], summary: Summary, split: str) -> None:
    """Families with the share of the box between SFT and RLHF that each covers, the front, and the choice."""
    from matplotlib.lines import Line2D

    handles = []
    covered = {cover.family: cover for cover in covers(summary, split)}
    shared = any(cover.share is not None for cover in covered.values())
    for family, (colour, marker) in colours(summary).items():
        if any(point.group.family == family for point in points):
            own = [p.group for p in points if p.group.family == family]
            joined = any("every" in group.settings for group in own)
            style = ":" if any(group.part_of for group in own) else "-" if joined else "none"
            label = f"{family}  {shown_cover(covered[family])}" if shared and family in covered else family
            look = {"color": colour, "marker": marker, "markeredgecolor": "white", "markersize": 8}
            handles.append(Line2D([], [], linestyle=style, label=label, **look))
    handles.append(Line2D([], [], color="#999999", alpha=0.5, linewidth=5, label="Pareto front of these points"))
    if summary.choice.group:
        handles.append(
            Line2D(
                [],
                [],
                color="none",
                marker="o",
                markeredgecolor="black",
                markerfacecolor="none",
                markersize=12,
                label="chosen on the validation rows",
            )
        )
    title = {"title": "hypervolume: share of the box\nbetween SFT and RLHF", "title_fontsize": 9} if shared else {}
    position = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "alignment": "left"}
    axes.legend(handles=handles, frameon=False, fontsize=10, **position, **title)


def draw_texts(figure: Any, axes: Any, points: list[Point], summary: Summary) -> None:
    """A text beside each point that has room: models first, then the front, the choice, Step-K, and the rest."""
    from matplotlib.colors import to_rgb

    renderer = figure.canvas.get_renderer()
    pixels = [tuple(axes.transData.transform((p.x.mean, p.y.mean))) for p in points]
    size = 8.5
    sizes = []
    for point in points:
        text = axes.text(0, 0, point.text, fontsize=_size(point, size))
        box = text.get_window_extent(renderer)
        sizes.append((box.width + 2, box.height + 1))
        text.remove()

    # of a search's many points those are named that somebody may want; the report has them all
    named = [at for at, p in enumerate(points) if not p.group.trial or p.group.name in (*summary.front, summary.choice.group)]

    def rank(at: int) -> tuple[int, int]:
        name = points[at].group.name
        if points[at].colour in MODEL_COLOURS:
            return 0, at
        if name == summary.choice.group or name in summary.front:
            return 1, at
        return (2 if "every" in points[at].group.settings else 3), at

    # in pixels: a star or a cross of a model, the ring around the choice, anything else
    halves = [
        13.0 if point.group.name == summary.choice.group else 10.0 if point.colour in MODEL_COLOURS else 5.5 for point in points
    ]
    frame = axes.get_window_extent(renderer)
    where = {point.group.name: pixel for point, pixel in zip(points, pixels, strict=True)}
    segments = [(where[a.group.name], where[b.group.name]) for line in polylines(points) for a, b in pairwise(line)]
    segments += [bar for point in points for bar in _bars(axes, point)]
    inside = (frame.x0 + 2, frame.y0 + 2, frame.x1 - 2, frame.y1 - 2)
    for label in place_labels(pixels, sizes, sorted(named, key=rank), inside, halves, lines=segments):
        point = points[label.at]
        if label.far and point.group.trial and point.group.name != summary.choice.group:
            continue
        left, bottom, right, top = label.box
        centre = axes.transData.inverted().transform(((left + right) / 2, (bottom + top) / 2))
        dark = tuple(0.72 * part for part in to_rgb(point.colour))  # thin strokes need more contrast than markers
        axes.text(
            *centre,
            point.text,
            fontsize=_size(point, size),
            color=dark,
            ha="center",
            va="center",
            zorder=7,
            fontweight="bold" if point.colour == "black" else "normal",
        )
        if label.far:
            axes.plot(
                [point.x.mean, centre[0]], [point.y.mean, centre[1]], color=point.colour, linewidth=0.5, alpha=0.5, zorder=3
            )


def _bars(axes: Any, point: Point) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """A point's two bars, in pixels; without those that have no length."""

    def pixel(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y))
        return float(across), float(up)

    x, y = point.x.mean, point.y.mean
    (left, right), (down, up) = bar_of(point.x), bar_of(point.y)
    bars = []
    if x - left != x + right:
        bars.append((pixel(x - left, y), pixel(x + right, y)))
    if y - down != y + up:
        bars.append((pixel(x, y - down), pixel(x, y + up)))
    return bars


def _size(point: Point, size: float) -> float:
    return 10.5 if point.colour in MODEL_COLOURS else size
