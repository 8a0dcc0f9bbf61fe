"""Statistics over data rows, and bootstrap intervals of them, seeded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 1000
Columns = Sequence[Sequence[float]]
"""What a metric keeps of each row: one sequence per number, one entry per row."""


def ratio(numerators: Any, denominators: Any) -> Any:
    """sum(numerators) / sum(denominators), over the last axis."""
    import numpy as np

    return np.asarray(numerators).sum(-1) / np.asarray(denominators).sum(-1)


def intercept(values: Any, differences: Any) -> Any:
    """The least-squares line of `values` over `differences`, read at difference 0, over the last axis.

    The mean of the values where the differences are all equal: there is no line to draw.
    """
    import numpy as np

    values, differences = np.asarray(values, dtype=np.float64), np.asarray(differences, dtype=np.float64)
    mean, centre = values.mean(-1), differences.mean(-1)
    away = differences - centre[..., None]
    spread = (away * away).sum(-1)
    slope = np.divide((away * values).sum(-1), spread, out=np.zeros_like(spread), where=spread > 0)
    return mean - slope * centre


STATISTICS: MappingProxyType[str, Callable[..., Any]] = MappingProxyType({"ratio": ratio, "intercept": intercept})


@dataclass(frozen=True)
class BySums:
    """A statistic that reads nothing of the rows but sums, so that a draw of rows is one product of matrices.

    Attributes:
        of_rows: of columns, what is summed of each row; shape (sums, rows).
        value: of those sums, shape (..., sums), the statistic; shape (...).
    """

    of_rows: Callable[[Columns], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray]


def _of_ratio(columns: Columns) -> np.ndarray:
    import numpy as np

    return np.array(columns, dtype=np.float64)


def _ratio_of(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def _of_intercept(columns: Columns) -> np.ndarray:
    import numpy as np

    values, differences = np.array(columns, dtype=np.float64)
    return np.stack([np.ones_like(values), values, differences, differences * differences, differences * values])


def _intercept_of(sums: np.ndarray) -> np.ndarray:
    import numpy as np

    count, value, difference, square, both = np.moveaxis(sums, -1, 0)
    spread = square - difference * difference / count
    # what rounding leaves of equal differences is no slope
    flat = spread <= 1e-12 * np.maximum(square, 1e-300)
    slope = np.where(flat, 0.0, (both - difference * value / count) / np.where(flat, 1.0, spread))
    return (value - slope * difference) / count


BY_SUMS: MappingProxyType[str, BySums] = MappingProxyType(
    {"ratio": BySums(_of_ratio, _ratio_of), "intercept": BySums(_of_intercept, _intercept_of)}
)
"""The same statistics as in STATISTICS."""


def replicates(
    columns: Columns, seed: int | Sequence[int] = 0, resamples: int = RESAMPLES, statistic: Callable[..., Any] = ratio
) -> np.ndarray:
    """The statistic of `resamples` draws of the rows with replacement; float64, shape (resamples,).

    The same seed draws the same rows for every model, so intervals of two models on the same data are comparable.
    """
    import numpy as np

    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    drawn = np.random.default_rng(seed).integers(0, len(arrays[0]), (resamples, len(arrays[0])))
    return statistic(*(array[drawn] for array in arrays))


def percentiles(found: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """(low, high): the middle `level` of replicates."""
    import numpy as np

    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap(
    columns: Columns,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    statistic: Callable[..., Any] = ratio,
) -> tuple[float, float]:
    """Percentile interval of a statistic, rows drawn with replacement.

    Args:
        columns: what the metric keeps of each row; one entry per row in each.
        seed: of the draws, see `replicates`.
        level: coverage, 0.95 for a 95 % interval.
        statistic: of columns to one number over the last axis.

    Returns:
        (low, high) in the metric's unit.
    """
    return percentiles(replicates(columns, seed, resamples, statistic), level)
