"""OUT/SETTING.png: metrics over a swept setting, one line a method, like Fig. 2 to 4 of the online-merging paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mergetool.study.analysis.choose import Summary
from mergetool.study.analysis.groups import Group
from mergetool.study.candidates.grid import SYMBOLS
from mergetool.study.recipe.columns import Column
from mergetool.study.recipe.figures import Figure
from mergetool.study.report.picture_points import bar_of, score_of
from mergetool.study.report.style import axis_title, canvas, colours, what_bars_are

PANEL = (5.6, 4.6)  # inches
WORDS = {"density": "density p", "every": "merge every K steps", "beta": "β of the loss", "weight": "weight of RLHF, w"}
DECADE = 10.0  # values that span more than this are drawn on a logarithm


def draw_curve(summary: Summary, figure: Figure, path: Path, title: str, split: str = "test") -> Path:
    """Writes one figure.

    Args:
        summary: of the study.
        figure: the setting, and what is drawn over it; default: the two axes of the study.
        path: of the PNG.
        title: the study's name.
        split: whose scores are drawn.

    Returns:
        `path`.
    """
    by_name = {column.name: column for column in summary.columns}
    shown = [by_name[name] for name in figure.metrics] if figure.metrics else [summary.reward, summary.tax]
    lines = _lines(summary, figure.over)
    ticks = _ticks([group.settings[figure.over] for line in lines.values() for group in line])
    log = figure.log if figure.log is not None else _spans_decades(ticks)
    with canvas(path, (PANEL[0] * len(shown), PANEL[1]), len(shown)) as (drawing, axes):
        panels = axes if len(shown) > 1 else [axes]
        for panel, column in zip(panels, shown, strict=True):
            _models(panel, summary, column, split)
            _sweep(panel, summary, column, split, lines, figure.over, ticks)
            _axes(panel, column, figure.over, ticks, log)
        handles, names = panels[0].get_legend_handles_labels()
        drawing.legend(handles, names, loc="outside lower center", ncols=min(len(names), 6), frameon=False)
        drawing.suptitle(f"{title}: {split} rows; {what_bars_are(summary)}", fontsize=11.5, x=0.01, ha="left")
    return path


def _lines(summary: Summary, over: str) -> dict[tuple[str, str], list[Group]]:
    """(family, its other settings in words) -> its groups along the setting."""
    from mergetool.study.candidates.grid import label_of

    found: dict[tuple[str, str], list[Group]] = {}
    for group in summary.groups:
        if over in group.settings:
            rest = {key: value for key, value in group.settings.items() if key != over}
            found.setdefault((group.family, label_of(rest)), []).append(group)
    return found


def _ticks(values: list[float | str]) -> dict[float | str, float]:
    """Where each value stands; a word (`total`) to the right of the largest number, as the next step of its kind."""
    numbers = sorted({value for value in values if not isinstance(value, str)})
    positions: dict[float | str, float] = {value: float(value) for value in numbers}
    for word in dict.fromkeys(value for value in values if isinstance(value, str)):
        last = max(positions.values(), default=0.5)
        positions[word] = 2 * last
    return positions


def _spans_decades(ticks: dict[float | str, float]) -> bool:
    low, high = min(ticks.values()), max(ticks.values())
    return low > 0 and high / low > DECADE


def _models(panel: Any, summary: Summary, column: Column, split: str) -> None:
    """SFT and RLHF as lines across, with RLHF's spread: what the swept methods are compared with."""
    for name, word, dashes in (("sft", "SFT", (1, 2)), (summary.rlhf, "RLHF", (5, 2))):
        group = summary.group(name) if name else None
        if group is None:
            continue
        score = score_of(summary, group, column, split)
        label = word if group.name == word.lower() else f"{word} ({group.name})"
        panel.axhline(score.mean, color="#444444", linewidth=1.1, dashes=dashes, label=label, zorder=1)
        below, above = bar_of(score)
        panel.axhspan(score.mean - below, score.mean + above, color="#444444", alpha=0.08, linewidth=0, zorder=0)


def _sweep(
    panel: Any,
    summary: Summary,
    column: Column,
    split: str,
    lines: dict[tuple[str, str], list[Group]],
    over: str,
    ticks: dict[float | str, float],
) -> None:
    look = {**colours(summary), **({summary.rlhf: ("black", "X")} if summary.rlhf else {})}
    drawn: dict[str, int] = {}
    for (family, rest), line in lines.items():
        line = sorted(line, key=lambda group: ticks[group.settings[over]])
        scores = [score_of(summary, group, column, split) for group in line]
        colour, marker = look.get(family, ("black", "o"))
        style = ("-", "--", ":", "-.")[drawn.setdefault(family, 0) % 4]
        drawn[family] += 1
        panel.errorbar(
            [ticks[group.settings[over]] for group in line],
            [score.mean for score in scores],
            yerr=list(zip(*(bar_of(score) for score in scores), strict=True)),
            color=colour,
            marker=marker,
            markersize=6.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            linewidth=1.6,
            linestyle=style,
            elinewidth=1.0,
            capsize=2.5,
            label=" ".join(filter(None, [family, rest])),
            zorder=3,
        )


def _axes(panel: Any, column: Column, over: str, ticks: dict[float | str, float], log: bool) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    if log:
        panel.set_xscale("log")
    panel.set_xticks(list(ticks.values()), [_spelled(value) for value in ticks], fontsize=9)
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_minor_formatter(NullFormatter())
    symbol = SYMBOLS.get(over)
    panel.set_xlabel(WORDS.get(over, over if symbol in (None, over) else f"{over} {symbol}"), fontsize=10.5)
    side = "reward" if column.side == "reward" else "tax"
    panel.set_title(f"{side}: {axis_title(column)}", fontsize=10.5)
    better = "higher" if column.metric.higher_is_better else "lower"
    panel.set_ylabel(f"{column.metric.short} ({better} is better)", fontsize=10)
    panel.grid(color="#E6E6E6", linewidth=0.8)
    panel.set_axisbelow(True)


def _spelled(value: float | str) -> str:
    if isinstance(value, str) or 1e-3 <= abs(value) < 1e4 or value == 0:
        return value if isinstance(value, str) else f"{value:g}"
    digits, power = f"{value:e}".split("e")
    number = float(digits)
    return f"{'' if number == 1 else f'{number:g}·'}10{str(int(power)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
