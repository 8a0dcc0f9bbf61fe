"""Differences between models on the same rows, with intervals: rows are drawn by cluster, and seeds beside them.

Models are compared row by row: what makes a row hard is common to all of them and cancels, so an interval of the
difference is a fraction of that of either score. Rows of one prompt or document are drawn together, for they are no
independent evidence. A ratio (nats per token) is a ratio of sums in every draw, as the metric itself is.

Source: Miller 2024, "Adding Error Bars to Evals", arXiv 2411.00640: paired differences (4.2), clustered standard errors
(2.2) and power (5); by bootstrap where the paper has formulas, since ratios of sums have none that is exact.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zlib import crc32

from mergetool.evaluate.interval import BY_SUMS, Columns, percentiles

if TYPE_CHECKING:
    import numpy as np

DRAWS = 2000
_AT_ONCE = 8_000_000  # counts of clusters in memory
_SEEN = 1.959964 + 0.841621  # of a normal: a difference is seen at 95 % in four samples of five
DOCUMENT_KEYS = ("document", "doc_id", "document_id")
"""Columns by which rows say which document they are from."""


@dataclass(frozen=True)
class Drawn:
    """One number of a group of models, which differ in their seed alone, in every draw.

    Attributes:
        value: as measured, mean over seeds.
        draws: over draws of rows and seeds, float64, shape (DRAWS,).
        by_rows: over the same draws of rows, the seeds as they are.
        rows, clusters, seeds: how many.
    """

    value: float
    draws: np.ndarray = field(repr=False)
    by_rows: np.ndarray = field(repr=False)
    rows: int
    clusters: int
    seeds: int


@dataclass(frozen=True)
class Difference:
    """One model's score less another's, in the metric's unit.

    Attributes:
        mean: of the scores as measured.
        low, high: the middle 95 % of draws of rows and seeds.
        se: standard deviation over the draws. rows_se: over draws of rows alone.
        rows, clusters, seeds: how many.
    """

    mean: float
    low: float
    high: float
    se: float
    rows_se: float
    rows: int
    clusters: int
    seeds: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def clusters_of(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Which rows belong together: those of one document where rows name it, else those of one prompt; from 0."""
    seen: dict[Hashable, int] = {}
    return [seen.setdefault(_document(at, row), len(seen)) for at, row in enumerate(rows)]


def _document(at: int, row: Mapping[str, Any]) -> Hashable:
    for key in DOCUMENT_KEYS:
        if row.get(key) is not None:
            return key, str(row[key])
    return ("prompt", str(row["prompt"])) if row.get("prompt") else ("row", at)


def over_draws(
    members: Sequence[Columns], statistic: str = "ratio", clusters: Sequence[int] | None = None, stream: str = ""
) -> Drawn:
    """A metric in every draw.

    Args:
        members: what the metric keeps of each row, of one model for each seed, in the order of the seeds.
        statistic: a key of `interval.STATISTICS`.
        clusters: which rows are drawn together; None: each by itself.
        stream: names the data: equal names draw the same rows, so that differences are paired.

    Returns:
        The same for the same arguments. Groups of as many seeds have the same draws of seeds.
    """
    import numpy as np

    by_sums = BY_SUMS[statistic]
    summed = np.stack([by_sums.of_rows(columns) for columns in members])
    seeds, parts, rows = summed.shape
    flat = summed.reshape(seeds * parts, rows).T
    count = rows
    if clusters is not None:
        count = max(clusters) + 1
        own = np.zeros((count, seeds * parts))
        np.add.at(own, np.asarray(clusters), flat)
        flat = own
    drawn = by_sums.value(_sums(flat, stream).reshape(DRAWS, seeds, parts))
    return Drawn(
        float(by_sums.value(summed.sum(-1)).mean()),
        (drawn * _seed_counts(seeds)).sum(1) / seeds,
        drawn.mean(1),
        rows,
        count,
        seeds,
    )


def _sums(of_clusters: np.ndarray, stream: str) -> np.ndarray:
    """Sums over drawn clusters; shape (DRAWS, sums)."""
    import numpy as np

    clusters = len(of_clusters)
    if clusters * DRAWS <= _AT_ONCE:
        return _kept_counts(clusters, stream) @ of_clusters
    return np.concatenate([counts @ of_clusters for counts in _counts(clusters, stream)])


@lru_cache(maxsize=4)
def _kept_counts(clusters: int, stream: str) -> np.ndarray:
    import numpy as np

    return np.concatenate(list(_counts(clusters, stream)))


def _counts(clusters: int, stream: str) -> Iterator[np.ndarray]:
    """How often each cluster is in each draw, some draws at a time."""
    import numpy as np

    generator = np.random.default_rng([0, crc32(stream.encode()), clusters])
    some = max(1, _AT_ONCE // clusters)
    for start in range(0, DRAWS, some):
        size = min(some, DRAWS - start)
        yield generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=size).astype(np.float64)


@lru_cache(maxsize=16)
def _seed_counts(seeds: int) -> np.ndarray:
    import numpy as np

    if seeds == 1:
        return np.ones((DRAWS, 1))
    return np.random.default_rng([1, seeds]).multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS).astype(np.float64)


def difference(one: Drawn, other: Drawn) -> Difference:
    """`one` less `other`; both of the same rows."""
    away = one.draws - other.draws
    low, high = percentiles(away)
    by_rows = one.by_rows - other.by_rows
    return Difference(
        one.value - other.value,
        low,
        high,
        float(away.std(ddof=1)),
        float(by_rows.std(ddof=1)),
        one.rows,
        one.clusters,
        max(one.seeds, other.seeds),
    )


def turned(away: Difference, sign: float) -> Difference:
    """The difference itself (sign 1), or the other way round (-1)."""
    return away if sign > 0 else replace(away, mean=-away.mean, low=-away.high, high=-away.low)


def combined(parts: Sequence[Drawn], scales: Sequence[float], shift: float = 0.0) -> Drawn:
    """`shift` and the sum of `parts`, each times its scale; rows and clusters are those of the part that has fewest."""
    import numpy as np

    fewest = min(parts, key=lambda part: part.clusters)
    return Drawn(
        shift + sum(part.value * scale for part, scale in zip(parts, scales, strict=True)),
        shift + np.sum([part.draws * scale for part, scale in zip(parts, scales, strict=True)], axis=0),
        shift + np.sum([part.by_rows * scale for part, scale in zip(parts, scales, strict=True)], axis=0),
        fewest.rows,
        fewest.clusters,
        max(part.seeds for part in parts),
    )


def interpolated(at: Drawn, xs: Sequence[Drawn], ys: Sequence[Drawn]) -> Drawn | None:
    """The line through the points (xs, ys), read at `at`, in every draw.

    Returns:
        None where `at` lies beyond the points as they were measured: nothing is extrapolated.
    """
    import numpy as np

    if not min(x.value for x in xs) <= at.value <= max(x.value for x in xs):
        return None

    def read(place: Any, across: Any, up: Any) -> Any:
        order = np.argsort(across, axis=-1, kind="stable")
        across, up = np.take_along_axis(across, order, -1), np.take_along_axis(up, order, -1)
        right = np.clip((across <= place[..., None]).sum(-1), 1, across.shape[-1] - 1)[..., None]
        (x0, y0), (x1, y1) = ([np.take_along_axis(part, right - back, -1)[..., 0] for part in (across, up)] for back in (1, 0))
        wide = x1 > x0
        share = np.where(wide, (place - x0) / np.where(wide, x1 - x0, 1.0), 0.0)
        return y0 + np.clip(share, 0.0, 1.0) * (y1 - y0)

    value = read(np.array([at.value]), np.array([[x.value for x in xs]]), np.array([[y.value for y in ys]]))
    draws = read(at.draws, np.stack([x.draws for x in xs], -1), np.stack([y.draws for y in ys], -1))
    by_rows = read(at.by_rows, np.stack([x.by_rows for x in xs], -1), np.stack([y.by_rows for y in ys], -1))
    first = ys[0]
    return Drawn(float(value[0]), draws, by_rows, first.rows, first.clusters, max(y.seeds for y in ys))


def rows_needed(found: Difference) -> int | None:
    """How many rows like these would tell two models apart that differ by what was found, in four samples of five.

    Returns:
        None where no number of rows would: they do not differ, or their seeds differ by more.
    """
    if not found.mean:
        return None
    wanted = (found.mean / _SEEN) ** 2
    of_seeds = max(0.0, found.se**2 - found.rows_se**2)
    if of_seeds >= wanted:
        return None
    return math.ceil(found.rows * found.rows_se**2 / (wanted - of_seeds))


def least_seen(found: Difference) -> float:
    """The smallest difference that as many rows and seeds show in four samples of five, in the metric's unit."""
    return _SEEN * found.se
