"""The settings of a merge, group by group: what the table of methods says of them is checked here."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from typing import Any

from mergetool.errors import RecipeError, nearest
from mergetool.methods import Online
from mergetool.options import Word

Group = MutableMapping[str, Any]
"""A parameter group: a dict, or the view of one that OnlineMerge takes."""


def resolve_alpha(group: Group) -> None:
    """`alpha_total` → `alpha` = alpha_total/M with M = ⌊total_steps/every⌋ merges.

    Raises:
        RecipeError: both are given, or the number of merges is unknown or 0.
    """
    total = group["alpha_total"]
    if total is None:
        return
    steps, every = group["total_steps"], group["every"]
    if group["alpha"] and "merges" not in group:
        raise RecipeError("alpha and alpha_total are both given", "alpha is for a merge, alpha_total for the run")
    if not isinstance(steps, int) or steps < 1:
        raise RecipeError("alpha_total needs total_steps, the steps of the run", "give total_steps, or alpha")
    if steps < every:
        raise RecipeError(f"a run of {steps} steps never merges with every={every}", "lower `every` or train longer")
    group["alpha"] = total / (steps // every)


def check(row: Online, group: Group) -> None:
    """Refuse settings that are out of range or make no sense together.

    Raises:
        RecipeError: names the setting and what it may be.
    """
    for setting in (*row.options, *(later for later in row.later if later.name in group)):
        value = group[setting.name]
        try:
            setting.read(value)
        except ValueError:
            if isinstance(setting, Word):
                raise RecipeError(f"{setting.name} is '{value}'", nearest(str(value), setting.words)) from None
            raise RecipeError(f"{setting.name} is {value!r}", f"it is {setting.what}") from None
    if problem := row.fits(group):
        raise RecipeError(*problem)


def check_adamw(group: dict[str, Any]) -> None:
    """Refuse AdamW's own settings where they are out of range.

    Raises:
        RecipeError: names the setting and what it may be.
    """
    try:
        rate, eps, decay = float(group["lr"]), float(group["eps"]), float(group["weight_decay"])
        first, second = map(float, group["betas"])
    except (TypeError, ValueError) as error:
        raise RecipeError(f"lr, betas, eps and weight_decay are not all numbers ({error})", "betas are two") from None
    if not 0.0 <= rate < math.inf:
        raise RecipeError(f"lr is {group['lr']}", "it must be 0 or more")
    if not (0.0 <= first < 1.0 and 0.0 <= second < 1.0):
        raise RecipeError(f"betas are {group['betas']}", "both lie in [0, 1)")
    if not 0.0 < eps < math.inf:
        raise RecipeError(f"eps is {group['eps']}", "it must be above 0")
    if not 0.0 <= decay < math.inf:
        raise RecipeError(f"weight_decay is {group['weight_decay']}", "it must be 0 or more")
    if group["moments"] not in ("float32", "parameter"):
        raise RecipeError(f"moments is '{group['moments']}'", "known: float32, parameter")
    if group["compile"] not in (None, True, False):
        raise RecipeError(f"compile is {group['compile']!r}", "it is True, False, or None for where it pays")
