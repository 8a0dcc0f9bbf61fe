"""The settings of a merge, group by group: what the table of methods says of them is checked here."""

from __future__ import annotations

from typing import Any

from mergetool.errors import RecipeError, nearest
from mergetool.methods import Online
from mergetool.options import Word


def resolve_alpha(group: dict[str, Any]) -> None:
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


def check(row: Online, group: dict[str, Any]) -> None:
    """Refuse settings that are out of range or make no sense together.

    Raises:
        RecipeError: names the setting and what it may be.
    """
    for setting in row.options:
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
    if not float(group["lr"]) >= 0.0:
        raise RecipeError(f"lr is {group['lr']}", "it must be 0 or more")
    if not all(0.0 <= b < 1.0 for b in group["betas"]):
        raise RecipeError(f"betas are {group['betas']}", "both lie in [0, 1)")
    if not group["eps"] > 0.0:
        raise RecipeError(f"eps is {group['eps']}", "it must be above 0")
    if not group["weight_decay"] >= 0.0:
        raise RecipeError(f"weight_decay is {group['weight_decay']}", "it must be 0 or more")
    if group["moments"] not in ("float32", "parameter"):
        raise RecipeError(f"moments is '{group['moments']}'", "known: float32, parameter")
    if group["compile"] not in (None, True, False):
        raise RecipeError(f"compile is {group['compile']!r}", "it is True, False, or None for where it pays")
