"""Decay curves for the models along a run: how much each of them counts in their average.

A curve w falls from 1 to 0 along the run. Model j of n counts w(j/n) − w((j+1)/n), so that the update between two models is
scaled as a learning rate that decays along w would have scaled it.

Source: WSM, arXiv 2507.17634: checkpoint merging in place of learning rate decay.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from mergetool.errors import RecipeError, nearest

EMA = "ema"
CURVES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "sma": lambda x: 1 - x,
        "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
        "1-sqrt": lambda x: 1 - math.sqrt(x),
    }
)
"""Name -> the curve; `sma` is linear decay. `ema` is none of a run's length alone: see `shares`."""


def shares(curve: str, count: int, coefficient: float | None = None) -> list[float]:
    """How much each of `count` models counts, the earliest first; they sum to 1.

    Args:
        curve: of CURVES; or `ema`, the average that begins with the first model and goes the way c to each further one.
        coefficient: c, of `ema` alone.

    Raises:
        RecipeError: no such curve; `ema` without a coefficient between 0 and 1, or another curve with one.
    """
    if curve == EMA:
        if coefficient is None or not 0 < coefficient <= 1:
            raise RecipeError("curve ema: a coefficient above 0 and up to 1 is needed", "add `coefficient: 0.2`")
        return [(1.0 if at == 0 else coefficient) * (1 - coefficient) ** (count - 1 - at) for at in range(count)]
    if curve not in CURVES:
        raise RecipeError(f"curve '{curve}' is not known", nearest(curve, [*CURVES, EMA]))
    if coefficient is not None:
        raise RecipeError(f"coefficient: the curve {curve} has none", "remove it, or take `curve: ema`")
    heights = [CURVES[curve](at / count) for at in range(count)] + [0.0]
    return [here - after for here, after in itertools.pairwise(heights)]
