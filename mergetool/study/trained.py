"""Alignment runs of a study: one align recipe for each point of a grid and each seed."""

from __future__ import annotations

import itertools

from mergetool.align.algorithms import takes_reward
from mergetool.align.recipe import takes_seed
from mergetool.errors import RecipeError
from mergetool.study.grid import Candidate, label_of, points_of
from mergetool.study.recipe import CandidateEntry, StudyRecipe


def align_points(recipe: StudyRecipe, entry: CandidateEntry, named: list[str] | None = None) -> list[Candidate]:
    """One align recipe per point; the family's name alone where nothing but the seed varies.

    `named`: the settings that are shown, in place of those that vary.
    """
    grid = entry.align
    assert grid is not None
    if not recipe.models.base:
        raise RecipeError(
            f"candidates: '{entry.name}' is an align candidate and the study has no base model", "add models.base"
        )
    defaults = recipe.align_defaults
    settings = dict(grid.model_extra or {})
    if grid.beta is not None:
        settings["beta"] = grid.beta
    points, varying = points_of(settings)
    varying = named or varying
    seeds = grid.seed if isinstance(grid.seed, list) else [grid.seed]
    found = []
    for point, seed in itertools.product(points, seeds):
        shown = {key: point[key] for key in varying}
        group = " ".join(filter(None, [entry.name, label_of(shown)]))
        knobs = {key: value for key, value in point.items() if key != "beta"}
        beta = point.get("beta", defaults.beta)
        algorithm = grid.algorithm or defaults.algorithm
        rewards = [defaults.reward] if isinstance(defaults.reward, str) else defaults.reward or []
        align = {
            "base_model": "BASE",
            "sft_model": "SFT",
            "algorithm": algorithm,
            **({} if beta is None else {"beta": beta}),
            **({"reward": [recipe.reward_source(text) for text in rewards]} if takes_reward(algorithm) else {}),
            "data": {
                key: str(recipe.source(value)) if key in ("train", "eval") and isinstance(value, str) else value
                for key, value in defaults.data.items()
            },
            "merging": {"method": grid.method, **knobs} | ({"seed": seed} if takes_seed(grid.method) else {}),
            "training": {**defaults.training, **grid.training, "seed": seed},
            **{key: value for key in ("dtype", "out_dtype") if (value := getattr(defaults, key)) is not None},
        }
        name = f"{group} seed={seed}" if len(seeds) > 1 else group
        found.append(Candidate(name, group, entry.family or entry.name, "align", entry.name, shown, seed, align))
    return found
