"""One recipe, many values: which recipes a sweep stands for."""

from __future__ import annotations

import itertools
import re
from typing import Any

from mergetool.config.strict_yaml import parse_yaml, validate
from mergetool.errors import RecipeError, nearest
from mergetool.merge.recipe import MergeRecipe

_PLACE = re.compile(r"^(?:models\[(\d+)\]\.)?([A-Za-z_]+)$")
_TOP = ("merge_method", "seed", "out_dtype")


def expand(recipe: MergeRecipe, sweeps: list[str]) -> list[tuple[str, MergeRecipe]]:
    """Every combination of the values of a sweep.

    Args:
        recipe: the recipe that the values are put into.
        sweeps: ``KEY=V1,V2,...``: KEY is a parameter (``density``), one model's (``models[1].weight``), or
            ``merge_method``, ``seed``, ``out_dtype``.

    Returns:
        (label, recipe) pairs; the label is a directory name such as ``density=0.3,models[1].weight=0.5``.

    Raises:
        RecipeError: a sweep is not of that form, or names a model that the recipe lacks.
    """
    axes = [_axis(recipe, sweep) for sweep in sweeps]
    keys = [key for key, _ in axes]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise RecipeError(f"--sweep {twice} is given twice", f"list all values at once: {twice}=V1,V2")
    found = []
    for values in itertools.product(*(values for _, values in axes)):
        content = recipe.to_dict()
        for key, value in zip(keys, values, strict=True):
            _put(content, key, value)
        label = ",".join(f"{key}={value}" for key, value in zip(keys, values, strict=True))
        found.append((label, validate(MergeRecipe, content, f"--sweep {label}")))
    return found


def _axis(recipe: MergeRecipe, sweep: str) -> tuple[str, list[Any]]:
    key, equals, text = sweep.partition("=")
    match = _PLACE.match(key.strip())
    if not equals or match is None or not text.strip():
        raise RecipeError(f"--sweep {sweep!r} is not of the form KEY=V1,V2", "for example --sweep models[1].weight=0.3,0.5,0.7")
    if match[1] is not None and int(match[1]) >= len(recipe.models):
        raise RecipeError(f"--sweep {key}: the recipe has {len(recipe.models)} models", "models are counted from 0")
    if match[1] is None and match[2] in ("models", "base_model", "dtype", "slices"):
        raise RecipeError(f"--sweep {key}: cannot be swept", nearest(key, ["weight", "density", "t", *_TOP]))
    return key.strip(), [parse_yaml(f"value: {value}", f"--sweep {key.strip()}")["value"] for value in text.split(",")]


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    match = _PLACE.match(key)
    assert match is not None  # `_axis` has seen to it
    if match[1] is None and match[2] in _TOP:
        content[match[2]] = value
        return
    owner = content if match[1] is None else content["models"][int(match[1])]
    owner["parameters"] = {**owner.get("parameters", {}), match[2]: value}
