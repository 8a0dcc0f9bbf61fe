"""Averages whose share differs from part to part: given in the recipe, or learned by AMA."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergetool.merge.parts import parts_of
from mergetool.study.candidates.grid import Candidate, label_of, points_of, rlhf_runs
from mergetool.study.recipe.study_recipe import CandidateEntry, StudyRecipe

if TYPE_CHECKING:
    from mergetool.ama import AmaRecipe


def by_part(recipe: StudyRecipe, shares: list[float]) -> list[Any]:
    """A merge recipe's setting that has share k in the k-th part of the SFT model's layers.

    Raises:
        MergetoolError: the model has fewer layers than there are shares, or cannot be read.
    """
    from mergetool.hub.references import open_layout

    parts = parts_of(open_layout(str(recipe.source(recipe.models.sft))), len(shares))
    return parts.setting([float(share) for share in shares], 0.0)


def combinations(shares: Any, parts: int) -> list[list[float]]:
    """Every way to give each of `parts` parts one of the shares."""
    values = shares if isinstance(shares, list) else [shares]
    return [list(some) for some in itertools.product(values, repeat=parts)]


def ama_points(recipe: StudyRecipe, entry: CandidateEntry, aligned: list[Candidate]) -> list[Candidate]:
    """One AMA recipe per mean and number of blocks and, where this study makes the RLHF model, per seed of that.

    Raises:
        RecipeError: the RLHF model is a grid.
    """
    grid = entry.ama
    assert grid is not None
    points, varying = points_of({"alpha": grid.alpha, "blocks": grid.blocks})
    data = grid.data
    if data is None:  # what alignment trained on: the chosen sides
        data = {key: value for key, value in recipe.align_defaults.data.items() if key in ("train", "limit", "max_length")}
    data = {
        key: str(recipe.source(value)) if key in ("train", "eval") and isinstance(value, str) else value
        for key, value in data.items()
    }
    rest = dict(grid.model_extra or {})
    if isinstance(rest.get("reward"), str):
        rest["reward"] = recipe.reward_source(rest["reward"])
    origins = rlhf_runs(recipe, aligned)
    found = []
    for point, origin in itertools.product(points, origins):
        shown = {key: point[key] for key in varying} or {"alpha": point["alpha"]}
        group = f"{entry.name} {label_of(shown)}"
        whole = {"sft_model": "SFT", "rlhf_model": "RLHF", **point, **rest, "data": data}
        name = f"{group} seed={origin.seed}" if origin is not None and len(origins) > 1 else group
        seed = origin.seed if origin is not None else None
        family = entry.family or entry.name
        needs = origin.name if origin else None
        found.append(Candidate(name, group, family, "ama", entry.name, shown, seed, whole, needs=needs))
    return found


def learned_recipe(whole: dict[str, Any], note: Path, device: str | None, fresh: bool) -> dict[str, Any]:
    """The merge recipe that AMA learns, from `note` where an earlier run of the same recipe has left it there."""
    from mergetool.ama import run_ama

    note.parent.mkdir(exist_ok=True)
    return run_ama(checked(whole), note, device=device, fresh=fresh)[0].recipe


def checked(whole: dict[str, Any]) -> AmaRecipe:
    """An AMA recipe with absolute paths.

    Raises:
        RecipeError: it is not valid.
    """
    from mergetool.ama import ama_recipe

    return ama_recipe(whole, Path("/"), "its AMA recipe")
