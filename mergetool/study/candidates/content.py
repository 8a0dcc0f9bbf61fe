"""Recipes by what their files hold: rows, rewards and models by content and not by path.

A study whose files have moved trains nothing again, and one whose files have changed does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mergetool.activations.recipe import CalibrationEntry
from mergetool.config.sources import resolve_source
from mergetool.fingerprints import data_identity

Identify = Callable[[Path | str], str]
"""Checkpoint -> hash of what is in it."""


def with_rows_by_content(recipe: dict[str, Any], identify: Identify) -> dict[str, Any]:
    """An align or AMA recipe whose data files and rewards are replaced by hashes of what they hold."""
    files = {key: recipe["data"][key] for key in ("train", "eval") if recipe["data"].get(key)}
    rows = {key: data_identity(_source(text)) for key, text in files.items()}
    found = with_calibration_by_content({**recipe, "data": {**recipe["data"], **rows}})
    if stay := recipe.get("merging", {}).get("rows"):
        names = [stay["data"]] if isinstance(stay["data"], str) else stay["data"]
        kept = {**stay, "data": [data_identity(_source(name)) for name in names]}
        found["merging"] = {**recipe["merging"], "rows": kept}
    if "reward" in recipe:
        rewards = [recipe["reward"]] if isinstance(recipe["reward"], str) else recipe["reward"]
        found["reward"] = [_reward_identity(text, identify) for text in rewards]
    return found


def with_calibration_by_content(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe whose calibrations, its models' own among them, are replaced by what their rows or files hold."""
    found = dict(recipe)
    if "calibration" in recipe:
        found["calibration"] = CalibrationEntry.model_validate(recipe["calibration"]).identity()
    if isinstance(recipe.get("models"), list):
        found["models"] = [with_calibration_by_content(model) for model in recipe["models"]]
    return found


def models_by_content(recipe: dict[str, Any], identify: Identify) -> list[str]:
    """A hash for each model that a merge recipe names; a name that is already a hash has no file and is left out."""
    entries = [recipe, *recipe.get("models", [])]
    names = [name for entry in entries for key in ("model", "base_model", "relative_to") if (name := entry.get(key))]
    sources = [_source(part) for name in names for part in name.split("+")]
    return [identify(one) for one in sources if isinstance(one, str) or one.is_dir()]


def _reward_identity(text: str, identify: Identify) -> str:
    """A reward by what it is: a function's file by its bytes, a model by its weights."""
    file, _, function = text.rpartition(":")
    if file.endswith(".py"):
        return f"{data_identity(Path(file))}:{function}"
    return identify(_source(text))


def _source(text: str) -> Path | str:
    return resolve_source(text, Path("/"))
