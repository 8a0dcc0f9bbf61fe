"""Single values of a recipe, set beside it: `training.learning_rate=1e-5`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from mergetool.config.strict_yaml import parse_yaml
from mergetool.errors import RecipeError

_EXAMPLE = "write KEY=VALUE, e.g. training.learning_rate=1e-5"


def with_settings(mapping: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """A recipe's values with some set anew; whether a key may be set is for the recipe to say, as of a key in its file.

    Args:
        mapping: what the YAML says.
        settings: each `KEY=VALUE`: keys of inner mappings behind dots, places in lists by number from 0; the value as YAML.

    Raises:
        RecipeError: one is not of this form, or leads through a value that has no keys.
    """
    found = copy.deepcopy(dict(mapping))
    for text in settings:
        path, equals, value = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise RecipeError(f"--set {text}: no KEY=VALUE", _EXAMPLE)
        holder: Any = found
        for at, key in enumerate(keys[:-1]):
            holder = _inner(holder, key, f"--set {text}: {'.'.join(keys[: at + 1])}")
        _put(holder, keys[-1], parse_yaml(f"value: {value}", f"--set {text}")["value"], f"--set {text}: {path}")
    return found


def _inner(holder: Any, key: str, where: str) -> Any:
    if isinstance(holder, list):
        return holder[_place(holder, key, where)]
    inner = holder.get(key)
    if inner is None:
        inner = holder[key] = {}
    if not isinstance(inner, (dict, list)):
        raise RecipeError(f"{where} is {inner!r}, which has no keys", "set the key itself")
    return inner


def _put(holder: Any, key: str, value: Any, where: str) -> None:
    if isinstance(holder, list):
        holder[_place(holder, key, where)] = value
    else:
        holder[key] = value


def _place(holder: list[Any], key: str, where: str) -> int:
    if not key.isdigit() or int(key) >= len(holder):
        raise RecipeError(f"{where}: '{key}' is no place in a list of {len(holder)}", "count places from 0")
    return int(key)
