"""Scores per category of rows: where a tax falls, and where the choice gives it back."""

from __future__ import annotations

import statistics
from typing import Any

from mergetool.study.analysis.choose import Summary


def by_category(summary: Summary, rows: list[dict[str, Any]], split: str = "test") -> list[dict[str, Any]]:
    """For each metric whose rows say what kind they are of: SFT, RLHF and the choice in each category.

    Args:
        summary: of the study.
        rows: lines of results.
        split: whose scores.

    Returns:
        Per metric: column, models (names), categories, each with its name and one bar for each model: value (mean over
        seeds, in the metric's unit), text, and width, as a share of the widest bar of the metric.
    """
    found = []
    lines = {row["name"]: row for row in rows}
    models = _models(summary)
    for column in summary.columns:
        values: dict[str, dict[str, float]] = {}
        for title, members in models.items():
            for name, value in _mean(lines, members, split, column.name).items():
                values.setdefault(name, {})[title] = value
        if not values:
            continue
        widest = max((abs(value) for bars in values.values() for value in bars.values()), default=0.0) or 1.0
        found.append(
            {
                "column": column,
                "models": list(models),
                "categories": [
                    {
                        "name": name,
                        "bars": [
                            {"model": model, "text": f"{value:.3f}", "width": round(abs(value) / widest, 4)}
                            for model, value in bars.items()
                        ],
                    }
                    for name, bars in values.items()
                ],
            }
        )
    return found


def _models(summary: Summary) -> dict[str, tuple[str, ...]]:
    """What is compared, in this order: title -> candidates."""
    found: dict[str, tuple[str, ...]] = {}
    for title, name in (("SFT", "sft"), ("RLHF", summary.rlhf), ("chosen", summary.choice.group)):
        group = summary.group(name) if name else None
        if group is not None and group.members not in found.values():
            found[title if group.name == title.lower() else f"{title} ({group.name})"] = group.members
    return found


def _mean(lines: dict[str, dict[str, Any]], members: tuple[str, ...], split: str, column: str) -> dict[str, float]:
    """Category -> mean over seeds."""
    each = [lines[name]["scores"][split][column].get("by") or {} for name in members]
    names = dict.fromkeys(name for one in each for name in one)
    return {name: statistics.fmean(one[name] for one in each if name in one) for name in names}
