"""The points of the picture, and which of them a line joins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mergetool.study.analysis.choose import Summary
from mergetool.study.analysis.groups import Group, Score
from mergetool.study.candidates.grid import label_of
from mergetool.study.recipe.columns import Column
from mergetool.study.report.style import MODELS, colours

JOINED = ("every", "step", "share", "weight", "alpha")


@dataclass(frozen=True)
class Point:
    """A group in the picture: reward, tax, the text beside it, and how it looks."""

    group: Group
    x: Score
    y: Score
    text: str
    colour: str
    marker: str


def points_of(summary: Summary, split: str) -> list[Point]:
    """All groups, in the study's order."""
    look = colours(summary)
    found = []
    for group in summary.groups:
        x, y = (score_of(summary, group, column, split) for column in (summary.reward, summary.tax))
        name = "rlhf" if group.name == summary.rlhf else group.name
        if name in MODELS:
            marker, text = MODELS[name]
            if name == "rlhf" and group.name != "rlhf":
                text = f"RLHF ({group.name})"
            found.append(Point(group, x, y, text, "black" if name != "base" else "#666666", marker))
        else:
            text = label_of(_rounded(group.settings) if group.trial else group.settings) or group.name
            found.append(Point(group, x, y, text, *look[group.family]))
    return found


def _rounded(settings: dict[str, Any]) -> dict[str, Any]:
    """A search's settings in two digits: the report has all of them."""
    return {key: float(f"{value:.2g}") if isinstance(value, float) else value for key, value in settings.items()}


def score_of(summary: Summary, group: Group, column: Column, split: str) -> Score:
    """A group's score with the interval that is drawn: over seeds its spread, else that of the difference from SFT.

    Rows that are hard for all models move all points together, and say nothing of how far apart these are. Where no
    scores row by row are there, it is the interval of the score itself.
    """
    score = group.scores[split][column.name]
    compared = summary.differences.get(split, {})
    if score.sd is not None or not compared:
        return score
    away = compared.get(group.name, {}).get("sft", {}).get(column.name)
    if away is None:
        return replace(score, low=score.mean, high=score.mean) if group.name == "sft" else score
    return replace(score, low=score.mean + away.low - away.mean, high=score.mean + away.high - away.mean)


def bar_of(score: Score) -> tuple[float, float]:
    """How far a point's bar reaches down and up: one standard deviation over seeds, else its interval, see `score_of`."""
    if score.sd is not None:
        return score.sd, score.sd
    return max(0.0, score.mean - score.low), max(0.0, score.high - score.mean)


def polylines(points: list[Point]) -> list[list[Point]]:
    """Points that a line joins: one family, all settings equal but one.

    That one is K, the step of a training run, or the share of a model in a merge. A line along a training starts at SFT
    and ends where its run does. The points of a search have no order.
    """
    found: list[list[Point]] = []
    by_name = {point.group.name: point for point in points}
    for at, key in enumerate(JOINED):
        lines: dict[tuple, list[Point]] = {}
        for point in points:
            settings = point.group.settings
            if key in settings and not point.group.trial and not any(other in settings for other in JOINED[:at]):
                rest = tuple(sorted((other, str(value)) for other, value in settings.items() if other != key))
                lines.setdefault((point.group.family, rest), []).append(point)
        for line in lines.values():
            line.sort(key=lambda point: _position(point.group.settings[key]))
            training = line[0].group.part_of
            ends = [by_name[name] for name in ("sft", training) if name in by_name] if training else []
            found.append([*ends[:1], *line, *ends[1:]] if len(ends) == 2 else line)
    return [line for line in found if len(line) > 1]


def _position(value: float | str) -> float:
    return float("inf") if isinstance(value, str) else float(value)  # `total` is the last K
