"""Points of a grid, and how their settings are written in names and pictures."""

from __future__ import annotations

import itertools
from typing import Any

# How a setting is written in a candidate's name and beside its point.
SYMBOLS = {
    "weight": "w",
    "alpha": "α",
    "weight by part": "w",
    "alpha by part": "α",
    "weight by layer": "w",
    "alpha by layer": "α",
    "density": "p",
    "every": "K",
    "alpha_total": "Σα",
    "beta": "β",
    "t": "t",
}


def grid_points(grid: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Every combination of the lists in `grid`, and the keys that are lists of more than one value."""
    lists = {key: value if isinstance(value, list) else [value] for key, value in grid.items()}
    points = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    return points, [key for key, values in lists.items() if len(values) > 1]


def label_of(settings: dict[str, Any]) -> str:
    """`w=0.5 p=0.1`: settings as a candidate's name and its point have them."""
    return " ".join(
        f"{SYMBOLS.get(key, key)}={value if isinstance(value, str) else f'{value:g}'}" for key, value in settings.items()
    )
