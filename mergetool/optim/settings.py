"""The settings of a merge, group by group: their defaults and what they may be."""

from __future__ import annotations

import math
from typing import Any

from mergetool.errors import RecipeError, nearest

_COMMON = {
    "density": 5e-4,
    "alpha": 0.0,
    "alpha_total": None,
    "total_steps": None,
    "every": 1,
    "rescale": "none",
    "tau_mask": "resample",
    "elect": "weighted",
    "clip": None,
    "seed": 0,
    "rounding": "stochastic",
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "dare": _COMMON | {"rescale": "unbiased"},
    "ties": _COMMON,
    "linear": _COMMON | {"density": 1.0},
}
"""method → setting → default; a group may have its own."""

_CHOICES = {
    "rescale": ("unbiased", "l1", "none"),
    "tau_mask": ("resample", "fixed"),
    "elect": ("weighted", "unweighted"),
    "rounding": ("stochastic", "nearest"),
}


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


def check(method: str, group: dict[str, Any]) -> None:
    """Refuse settings that are out of range or make no sense together.

    Raises:
        RecipeError: names the setting and what it may be.
    """
    density, every, clip = group["density"], group["every"], group["clip"]
    if not 0.0 < density <= 1.0:
        raise RecipeError(f"density is {density}", "it is the fraction of entries kept, in (0, 1]")
    if method == "linear" and density != 1.0:
        raise RecipeError("OnLinear keeps every entry", "drop density, or use OnDARE or OnTIES")
    if not (math.isfinite(group["alpha"]) and 0.0 <= group["alpha"] <= 1.0):
        raise RecipeError(f"alpha is {group['alpha']}", "it is the weight of the SFT delta at each merge, in [0, 1]")
    if not isinstance(every, int) or every < 1:
        raise RecipeError(f"every is {every!r}", "it is the number of steps between merges, 1 or more")
    if clip is not None and not clip > 0:
        raise RecipeError(f"clip is {clip}", "it is the largest magnitude of a delta's entry, or None")
    for key, choices in _CHOICES.items():
        if group[key] not in choices:
            raise RecipeError(f"{key} is '{group[key]}'", nearest(str(group[key]), choices))
    if method == "ties" and group["rescale"] == "unbiased":
        raise RecipeError("OnTIES keeps the largest entries, and no factor makes that unbiased", "use 'none' or 'l1'")


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
