"""Grids to candidates: one per point, and the exact recipe that each point stands for.

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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mergetool.errors import RecipeError
from mergetool.merge.parts import complement
from mergetool.study.recipe import CandidateEntry, FromAlign, StudyRecipe

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
_DISTANCE_METHODS = ("linear", "slerp")  # they merge models, not deltas: no density, no base


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
    if method == "slerp":
        found = {"merge_method": method, "base_model": "SFT", "models": [{"model": "SFT"}, {"model": "RLHF"}], **common}
        found["parameters"] = {"t": weight, **parameters}
    else:
        kept = {} if density is None else {"density": density}
        weights = {"SFT": _rest(weight) if alpha is None else alpha, "RLHF": weight}
        entries = [{"model": name, "parameters": {"weight": share, **kept}} for name, share in weights.items()]
        found = {"merge_method": method, "models": entries, **common}
        if method not in _DISTANCE_METHODS:
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


def expand(recipe: StudyRecipe) -> list[Candidate]:
    """Every candidate that is known beforehand: the models, then align candidates, then what is merged from them.

    The trials of a search are not among them: see `trial_points`.

    Raises:
        RecipeError: a key that this method does not have, or a model that it needs and the study lacks.
    """
    models = [Candidate("sft", "sft", "sft", "model", path=recipe.source(recipe.models.sft))]
    if recipe.models.base:
        models.append(Candidate("base", "base", "base", "model", path=recipe.source(recipe.models.base)))
    if isinstance(recipe.models.rlhf, str):
        models.append(Candidate("rlhf", "rlhf", "rlhf", "model", path=recipe.source(recipe.models.rlhf)))
    from mergetool.study.averages import ama_points
    from mergetool.study.checkpoints import along_points, ready_points

    aligned = _aligned(recipe)
    others: list[Candidate] = []
    for entry in recipe.candidates:
        if entry.align and not entry.search:
            others += along_points(recipe, entry, [one for one in aligned if one.entry == entry.name])
        elif entry.merge and not entry.search:
            others += _merge_points(recipe, entry, aligned)
        elif entry.ama:
            others += ama_points(recipe, entry, aligned)
        elif entry.checkpoint is not None:
            others += ready_points(recipe, entry)
        elif entry.recipe is not None:
            others.append(_whole_recipe(recipe, entry))
    found = models + aligned + others
    names = [one.name for one in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RecipeError(f"candidate '{twice}' occurs twice", "remove the repeated value from its list")
    return found


def _aligned(recipe: StudyRecipe) -> list[Candidate]:
    entries = [entry for entry in recipe.candidates if entry.align and not entry.search]
    return [one for entry in entries for one in _align_points(recipe, entry)]


def trial_points(recipe: StudyRecipe, entry: CandidateEntry, number: int, values: dict[str, Any]) -> list[Candidate]:
    """One trial of a search: its candidates differ in their seed alone, as those of a grid point do.

    Args:
        number: of the trial, from 1.
        values: what the search chose for the keys that it varies.

    Raises:
        RecipeError: as `expand`.
    """
    grid = entry.merge or entry.align
    assert grid is not None
    fixed = {**grid.model_dump(exclude_unset=True), **values}
    point = entry.model_copy(
        update={
            "name": f"{entry.name} {number}",
            "family": entry.family or entry.name,
            "search": None,
            "merge" if entry.merge else "align": type(grid).model_validate(fixed),
        }
    )
    shown = list(values)
    if entry.merge:
        found = _merge_points(recipe, point, _aligned(recipe), shown)
    else:
        found = _align_points(recipe, point, shown)
    return [replace(one, entry=entry.name, trial=number) for one in found]


def rlhf_group(recipe: StudyRecipe, candidates: list[Candidate]) -> str | None:
    """The group that is the study's RLHF model: `rlhf`, or the align candidate that makes it."""
    if isinstance(recipe.models.rlhf, FromAlign):
        return next((one.group for one in candidates if one.kind == "align" and one.entry == recipe.models.rlhf.align), None)
    return "rlhf" if recipe.models.rlhf else None


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


def _align_points(recipe: StudyRecipe, entry: CandidateEntry, named: list[str] | None = None) -> list[Candidate]:
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
            **({"reward": [recipe.reward_source(text) for text in rewards]} if algorithm in ("grpo", "raft") else {}),
            "data": {
                key: str(recipe.source(value)) if key in ("train", "eval") and isinstance(value, str) else value
                for key, value in defaults.data.items()
            },
            "merging": {"method": grid.method, **knobs} | ({} if grid.method == "adamw" else {"seed": seed}),
            "training": {**defaults.training, **grid.training, "seed": seed},
            **{key: value for key in ("dtype", "out_dtype") if (value := getattr(defaults, key)) is not None},
        }
        name = f"{group} seed={seed}" if len(seeds) > 1 else group
        found.append(Candidate(name, group, entry.family or entry.name, "align", entry.name, shown, seed, align))
    return found


def _merge_points(
    recipe: StudyRecipe, entry: CandidateEntry, aligned: list[Candidate], named: list[str] | None = None
) -> list[Candidate]:
    """One merge recipe per point and, where this study makes the RLHF model, per seed of that; `named` as above."""
    from mergetool.study.averages import by_part, combinations

    grid = entry.merge
    assert grid is not None
    share = "weight" if grid.weight is not None else "alpha"
    if grid.merge_method not in _DISTANCE_METHODS and not recipe.models.base:
        raise RecipeError(
            f"candidates: '{entry.name}' merges deltas from a base model and the study has none", "add models.base"
        )
    if grid.merge_method in _DISTANCE_METHODS and grid.relative_to == "sft":
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


def _whole_recipe(recipe: StudyRecipe, entry: CandidateEntry) -> Candidate:
    """A merge recipe file as one candidate."""
    from mergetool.merge import load_merge_recipe

    path = recipe.source(entry.recipe or "")
    whole = load_merge_recipe(path).to_dict()
    return Candidate(entry.name, entry.name, entry.family or entry.name, "merge", entry.name, recipe=whole)
