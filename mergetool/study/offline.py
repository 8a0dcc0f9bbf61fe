"""Offline merges of a study: the exact merge recipe that each point of a grid stands for.

A merge point with weight w (share of RLHF; `alpha` is 1 - w) and density p stands for

    linear           (1 - w) * SFT + w * RLHF
    slerp            the same two, t = w
    others, base     BASE + merge of [SFT - BASE at weight 1 - w, RLHF - BASE at weight w], each at density p
    others, sft      SFT + merge of [SFT - BASE at weight 1 - w, RLHF - SFT at weight w], each at density p

"base" and "sft" are `relative_to`. The third is how the online-merging paper sets its offline baselines; the fourth
is what a Step-K run does whose only merge is its last step, so it is the offline partner of online merging. There an
`alpha` beside `weight` takes the place of 1 - w, and alpha 0 leaves what alignment added, sparsified.
"""

from __future__ import annotations

import itertools
from typing import Any

from mergetool.errors import RecipeError
from mergetool.merge.parts import complement
from mergetool.methods import METHODS
from mergetool.study.averages import by_part, combinations
from mergetool.study.grid import Candidate, label_of, points_of, rlhf_runs
from mergetool.study.recipe import CandidateEntry, StudyRecipe


def merge_recipe(
    method: str,
    weight: float | list[Any],
    relative_to: str = "base",
    density: float | None = None,
    dtype: str | None = None,
    seed: int | None = None,
    alpha: float | None = None,
    **parameters: Any,
) -> dict[str, Any]:
    """The merge recipe of one grid point, as the module's docstring says; models are called SFT, BASE and RLHF.

    `weight` may be a setting that differs from part to part, see `mergetool.merge.parts`.
    """
    common = {"dtype": dtype, "seed": seed, "parameters": parameters}
    row = METHODS.get(method)
    if row is not None and row.consensus.pair:
        found = {"merge_method": method, "base_model": "SFT", "models": [{"model": "SFT"}, {"model": "RLHF"}], **common}
        found["parameters"] = {"t": weight, **parameters}
    else:
        kept = {} if density is None else {"density": density}
        weights = {"SFT": _rest(weight) if alpha is None else alpha, "RLHF": weight}
        entries = [{"model": name, "parameters": {"weight": share, **kept}} for name, share in weights.items()]
        found = {"merge_method": method, "models": entries, **common}
        if row is None or not row.of_models:
            found["base_model"] = "BASE"
            if relative_to == "sft":
                found["base_model"] = "SFT"
                entries[0]["relative_to"], entries[1]["relative_to"] = "BASE", "SFT"
                entries.reverse()  # as a Step-K run has them, its own update first: the same masks for the same seed
                if alpha == 0:
                    entries.pop()  # no need of BASE
    return {key: value for key, value in found.items() if value not in (None, {})}


def _rest(weight: float | list[Any]) -> float | list[Any]:
    """1 − weight: the other model's share."""
    return complement(weight) if isinstance(weight, list) else round(1 - weight, 12)


def merge_points(
    recipe: StudyRecipe, entry: CandidateEntry, aligned: list[Candidate], named: list[str] | None = None
) -> list[Candidate]:
    """One merge recipe per point and, where this study makes the RLHF model, per seed of that; `named` as above."""
    grid = entry.merge
    assert grid is not None
    share = "weight" if grid.weight is not None else "alpha"
    row = METHODS.get(grid.merge_method)
    of_models = row is not None and row.of_models  # no density, no base
    if not of_models and not recipe.models.base:
        raise RecipeError(
            f"candidates: '{entry.name}' merges deltas from a base model and the study has none", "add models.base"
        )
    if of_models and grid.relative_to == "sft":
        raise RecipeError(
            f"candidates: '{entry.name}': relative_to has no meaning for {grid.merge_method}, which merges models, not deltas",
            "remove it",
        )
    shares = getattr(grid, share)
    lists = {share: combinations(shares, grid.parts) if grid.parts else shares, **(grid.model_extra or {})}
    if share == "weight" and grid.alpha is not None:
        lists["alpha"] = grid.alpha
    points, varying = points_of(lists)
    varying = named or varying
    origins = rlhf_runs(recipe, aligned)
    seeds = grid.seed if isinstance(grid.seed, list) else [grid.seed]
    found = []
    for point, (at, seed), origin in itertools.product(points, enumerate(seeds), origins):
        shown = dict(_shown(key, point[key]) for key in varying or [share])
        group = f"{entry.name} {label_of(shown)}"
        rest = {key: value for key, value in point.items() if key != share}
        weight = by_part(recipe, point[share]) if isinstance(point[share], list) else point[share]
        weight = weight if share == "weight" else _rest(weight)
        # masks vary with the RLHF run unless told otherwise, so that the spread over seeds has both in it
        mask = seed if seed is not None else origin.seed if origin else 0
        whole = merge_recipe(grid.merge_method, weight, grid.relative_to, dtype=grid.dtype, seed=mask or None, **rest)
        parts = [group]
        if len(origins) > 1 and origin is not None:
            parts.append(f"seed={origin.seed}")
        if len(seeds) > 1:
            parts.append(f"mask={seed}")
        number = None if origin is None and len(seeds) == 1 else at if origin is None else origin.seed
        found.append(
            Candidate(
                " ".join(parts),
                group,
                entry.family or entry.name,
                "merge",
                entry.name,
                shown,
                number,
                whole,
                needs=origin.name if origin else None,
            )
        )
    return found


def _shown(key: str, value: Any) -> tuple[str, Any]:
    """A setting as names and pictures have it; shares by part are a word of their own, 0.2/0.5/0.8."""
    return (f"{key} by part", "/".join(f"{one:g}" for one in value)) if isinstance(value, list) else (key, value)
