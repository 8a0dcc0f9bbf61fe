"""A candidate: one point of a grid, and what it is called."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergetool.errors import RecipeError
from mergetool.study.recipe.study_recipe import FromAlign, StudyRecipe

# How a setting is written in a candidate's name and beside its point.
SYMBOLS = {
    "weight": "w",
    "alpha": "α",
    "weight by part": "w",
    "alpha by part": "α",
    "density": "p",
    "every": "K",
    "alpha_total": "Σα",
    "beta": "β",
    "t": "t",
}


@dataclass(frozen=True)
class Candidate:
    """One model to measure.

    Attributes:
        name: unique in the study; also the directory of an align candidate.
        group: the name without the seed: candidates of one group are reported as mean and spread.
        family: one colour in the picture.
        entry: the line of the recipe's `candidates` that it comes from; "" for the recipe's models.
        kind: "model" (base, sft, rlhf of the recipe), "checkpoint", "merge", "align", "ama" (a merge whose ratios are
            learned) or "along" (a run that it needs, at its settings' step or share).
        settings: the grid point, only what varies within the family.
        seed: None where nothing is random.
        recipe: what `merge`, `align` or `ama` is given; model names are SFT, BASE, RLHF until `placed`.
        path: of a model or a checkpoint.
        needs: name of the align candidate whose result is RLHF in this merge, or whose run this is a part of.
        trial: its number in a search; None outside of one.
    """

    name: str
    group: str
    family: str
    kind: str
    entry: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    recipe: dict[str, Any] | None = None
    path: Path | str | None = None
    needs: str | None = None
    trial: int | None = None

    def placed(self, places: dict[str, str]) -> dict[str, Any] | None:
        """The recipe with SFT, BASE and RLHF replaced by what `places` says."""
        return _replace(self.recipe, places)


def _replace(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replace(item, places) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, places) for item in value]
    return places.get(value, value) if isinstance(value, str) else value


def points_of(grid: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Every combination of the lists in `grid`, and the keys that are lists of more than one value."""
    lists = {key: value if isinstance(value, list) else [value] for key, value in grid.items()}
    points = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    return points, [key for key, values in lists.items() if len(values) > 1]


def label_of(settings: dict[str, Any]) -> str:
    """`w=0.5 p=0.1`: settings as a candidate's name and its point have them."""
    return " ".join(
        f"{SYMBOLS.get(key, key)}={value if isinstance(value, str) else f'{value:g}'}" for key, value in settings.items()
    )


def rlhf_runs(recipe: StudyRecipe, aligned: list[Candidate]) -> list[Candidate | None]:
    """The align candidates, one a seed, that make the study's RLHF model; [None] where it is a checkpoint.

    Raises:
        RecipeError: they differ in more than their seed.
    """
    if not isinstance(recipe.models.rlhf, FromAlign):
        return [None]
    found = [one for one in aligned if one.entry == recipe.models.rlhf.align]
    if len({one.group for one in found}) > 1:
        raise RecipeError(
            f"models.rlhf.align: '{recipe.models.rlhf.align}' is a grid, and RLHF is one model",
            "give it one value for everything but seed",
        )
    return list(found)
