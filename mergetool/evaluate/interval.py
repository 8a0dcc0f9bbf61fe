"""Bootstrap intervals over data rows, seeded."""

from __future__ import annotations

from collections.abc import Sequence

RESAMPLES = 1000


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """sum(numerators) / sum(denominators)."""
    return float(sum(numerators) / sum(denominators))


def bootstrap(
    numerators: Sequence[float], denominators: Sequence[float], seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile interval of a ratio of sums, rows drawn with replacement.

    The same seed draws the same rows for every model, so intervals of two models on the same data are comparable.

    Args:
        numerators, denominators: one entry per row, in the metric's unit.
        level: coverage, 0.95 for a 95 % interval.

    Returns:
        (low, high) in the metric's unit.
    """
    import numpy as np

    top, bottom = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(top), (resamples, len(top)))
    found = top[drawn].sum(1) / bottom[drawn].sum(1)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
