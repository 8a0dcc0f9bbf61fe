"""pareto.png: reward against tax on the test rows. Up and right are better, whatever the metrics."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mergetool.study.candidates import SYMBOLS
from mergetool.study.choose import Group, Score, Summary
from mergetool.study.labels import place_labels
from mergetool.study.splits import Column

# Okabe and Ito's colours, told apart with any kind of colour vision; each has a marker too. Yellow is left out: it is
# not seen on white. Black is for what everything is compared with.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00", "#6A3D9A")
MARKERS = ("o", "s", "^", "D", "v", "P", "h", "<", ">")  # one more than colours: the pair stays unique for 72 families
MODELS = {"sft": ("*", "SFT"), "base": ("p", "base"), "rlhf": ("X", "RLHF")}
MODEL_COLOURS = ("black", "#666666")
DPI, SIZE = 120, (11.0, 7.4)


@dataclass(frozen=True)
class _Point:
    group: Group
    x: Score
    y: Score
    text: str
    colour: str
    marker: str


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
    import matplotlib

    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    points = _points(summary, split)
    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(figsize=SIZE, dpi=DPI, layout="constrained")
        try:
            drawn = _frame(axes, points, summary)
            _lines(axes, drawn)
            _markers(axes, drawn, summary)
            _front(axes, drawn, summary)
            _titles(axes, summary, title, split)
            _legend(axes, drawn, summary)
            figure.canvas.draw()
            _texts(figure, axes, drawn, summary)
            figure.savefig(path, dpi=DPI)
        finally:
            plt.close(figure)
    return path


def colours(summary: Summary) -> dict[str, tuple[str, str]]:
    """Colour and marker of each family, the same in the picture and in the report."""
    families = [one.family for one in summary.groups if one.name not in MODELS and one.name != summary.rlhf]
    return {
        family: (COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]) for at, family in enumerate(dict.fromkeys(families))
    }


def _points(summary: Summary, split: str) -> list[_Point]:
    look = colours(summary)
    found = []
    for group in summary.groups:
        x, y = (group.scores[split][column.name] for column in (summary.reward, summary.tax))
        name = "rlhf" if group.name == summary.rlhf else group.name
        if name in MODELS:
            marker, text = MODELS[name]
            if name == "rlhf" and group.name != "rlhf":
                text = f"RLHF ({group.name})"
            found.append(_Point(group, x, y, text, "black" if name != "base" else "#666666", marker))
        else:
            text = " ".join(
                f"{SYMBOLS.get(key, key)}={value if isinstance(value, str) else f'{value:g}'}"
                for key, value in group.settings.items()
            )
            found.append(_Point(group, x, y, text or group.name, *look[group.family]))
    return found


def _frame(axes: Any, points: list[_Point], summary: Summary) -> list[_Point]:
    """Sets the limits. The base model is often far away: then it is named at the edge and not drawn."""
    near = [point for point in points if point.group.name != "base"]
    spans = []
    for pick in (lambda p: p.x, lambda p: p.y):
        values = [pick(point).mean + sign * (pick(point).sd or 0) for point in near for sign in (-1, 1)]
        low, high = min(values), max(values)
        room = (high - low) or abs(high) * 0.1 or 0.1
        spans.append((low - 0.09 * room, high + 0.11 * room, room))
    drawn = list(near)
    for point in points:
        if point.group.name != "base":
            continue
        far = any(
            not low - 0.5 * room < value < high + 0.5 * room
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


def _runs(points: list[_Point]) -> list[list[_Point]]:
    """Points that a line joins: one family, all settings equal but one, which is `every`, or else `weight`/`alpha`."""
    found = []
    for along in ("every", "weight", "alpha"):
        runs: dict[tuple, list[_Point]] = {}
        for point in points:
            settings = point.group.settings
            if along in settings and not (along != "every" and "every" in settings):
                rest = tuple(sorted((key, value) for key, value in settings.items() if key != along))
                runs.setdefault((point.group.family, rest), []).append(point)
        for run in runs.values():

            def place(point: _Point, along: str = along) -> float:
                value = point.group.settings[along]
                return float("inf") if isinstance(value, str) else float(value)  # `total` is the last K

            found.append(sorted(run, key=place))
    return [run for run in found if len(run) > 1]


def _lines(axes: Any, points: list[_Point]) -> None:
    for run in _runs(points):
        online = "every" in run[0].group.settings
        axes.plot(
            [p.x.mean for p in run],
            [p.y.mean for p in run],
            color=run[0].colour,
            zorder=2,
            linewidth=1.6 if online else 0.9,
            alpha=0.75 if online else 0.5,
            dashes=() if online else (4, 2),
        )


def _markers(axes: Any, points: list[_Point], summary: Summary) -> None:
    for point in points:
        if point.x.sd is not None or point.y.sd is not None:
            axes.errorbar(
                point.x.mean,
                point.y.mean,
                xerr=point.x.sd,
                yerr=point.y.sd,
                color=point.colour,
                alpha=0.3,
                linewidth=1.0,
                capsize=0,
                zorder=1,
            )
        big = point.colour in MODEL_COLOURS
        axes.scatter(
            point.x.mean,
            point.y.mean,
            s={"*": 190}.get(point.marker, 110) if big else 46,
            color=point.colour,
            marker=point.marker,
            edgecolors="white",
            linewidths=0.7,
            zorder=5 if big else 4,
        )
        if point.group.name == summary.choice.group:
            axes.scatter(point.x.mean, point.y.mean, s=230, facecolors="none", edgecolors="black", linewidths=1.5, zorder=6)


def _front(axes: Any, points: list[_Point], summary: Summary) -> None:
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
    axes.set_xlabel(f"reward: {_axis(summary.reward)}    better →", fontsize=11)
    axes.set_ylabel(f"tax: {_axis(summary.tax)}    better →", fontsize=11)
    seeds = max((len(group.members) for group in summary.groups), default=1)
    spread = f"; mean of up to {seeds} seeds, bars ± one standard deviation" if seeds > 1 else ""
    axes.set_title(f"{title}: reward against tax on the {split} rows{spread}", fontsize=11.5, loc="left")


def _axis(column: Column) -> str:
    entry = column.name.rpartition(".")[0]
    return (
        f"{column.metric.short} on {entry} ({column.metric.unit})"
        if entry != column.metric.name
        else f"{column.metric.short} ({column.metric.unit})"
    )


def _legend(axes: Any, points: list[_Point], summary: Summary) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for family, (colour, marker) in colours(summary).items():
        if any(point.group.family == family for point in points):
            style = "-" if any("every" in p.group.settings for p in points if p.group.family == family) else "none"
            handles.append(
                Line2D(
                    [], [], color=colour, marker=marker, markeredgecolor="white", linestyle=style, markersize=8, label=family
                )
            )
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
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=10)


def _texts(figure: Any, axes: Any, points: list[_Point], summary: Summary) -> None:
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
    segments = [(where[a.group.name], where[b.group.name]) for run in _runs(points) for a, b in pairwise(run)]
    inside = (frame.x0 + 2, frame.y0 + 2, frame.x1 - 2, frame.y1 - 2)
    for label in place_labels(pixels, sizes, sorted(range(len(points)), key=rank), inside, halves, lines=segments):
        point = points[label.at]
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


def _size(point: _Point, size: float) -> float:
    return 10.5 if point.colour in MODEL_COLOURS else size
