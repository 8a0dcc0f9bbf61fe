"""The largest entries of a delta of which each rank holds a part: exact, and the same on one rank and on eight."""

from __future__ import annotations

import math

import numpy as np
import torch

from mergetool.ops.threshold import KEEP_ALL, KEEP_NONE, Threshold, magnitude_threshold, magnitudes
from mergetool.optim.deltas import Delta
from mergetool.optim.sharding import Shard, blocks_of

SAMPLE = (64, 1 << 10)
"""What a bound is guessed from: so many runs of so many entries."""


def sampled(delta: Delta, shard: Shard) -> np.ndarray | None:
    """Magnitudes to guess a bound from; None for tensors that are small enough to be looked through whole."""
    if shard.numel <= 4 * math.prod(SAMPLE):
        return None
    return delta.sample(*SAMPLE) if shard.held else np.empty(0, np.float32)


def low_bracket(sample: np.ndarray | None, shard: Shard, k: int) -> float:
    """A magnitude that the k-th largest of the whole tensor exceeds with near certainty; −1 for small tensors.

    Args:
        sample: from `sampled`, on every rank.
        shard, k: as `top_k`.
    """
    if sample is None:
        return -1.0
    weight = None
    if shard.groups:
        # a rank that holds more entries speaks for more: repeat is avoided by weights
        weight = shard.collect(np.full(sample.size, shard.held / max(sample.size, 1)))
        sample = shard.collect(sample)
    expected = k / shard.numel * sample.size
    # entries of a tensor come in rows of like size, so the sample is noisier than an independent one: 6 sigma
    wanted = expected + 6.0 * math.sqrt(expected + 1.0) + 16
    if weight is None:
        at = math.ceil(wanted) - 1
        bound = np.partition(sample, -at - 1)[-at - 1] if at < sample.size else np.float32(0)
    else:
        order = np.argsort(-sample, kind="stable")
        at = int(np.searchsorted(np.cumsum(weight[order]) / shard.numel * sample.size, wanted))
        bound = sample[order[at]] if at < sample.size else np.float32(0)
    return float(np.nextafter(bound, np.float32(-1.0)))


Found = tuple[np.ndarray, np.ndarray]


def top_k(delta: Delta, shard: Shard, k: int, found: Found | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """This rank's share of the k entries of largest magnitude in the whole tensor, ties by the lower index.

    One sweep collects what lies above a sampled bound, and only that is ordered. Exact whatever the sample.

    Args:
        delta: the rank's part.
        shard: where the part lies.
        k: entries to keep in the whole tensor.
        found: what ``delta.above`` gives for some bound that was guessed, on every rank or on none; if there are fewer
            than k entries in it the sweep is made all the same.

    Returns:
        (local flat indices: int64, ascending; their values: fp32).
    """

    def enough(found: Found) -> bool:
        return shard.total([float(found[0].size)])[0] >= min(k, shard.numel)

    if found is None or not enough(found):
        low = low_bracket(sampled(delta, shard), shard, k)
        found = delta.above(low)
        while low >= 0 and not enough(found):
            low = low / 2 if low > 1e-30 else -1.0
            found = delta.above(low)
    index, value = found
    magnitude = magnitudes(value)
    everywhere = shard.collect(magnitude) if shard.groups else magnitude
    if everywhere.size > k:
        bound = np.partition(everywhere, everywhere.size - k)[everywhere.size - k]
        room = k - int(np.count_nonzero(everywhere > bound))
        keep = magnitude > bound
        ties = np.flatnonzero(magnitude == bound)
        if shard.groups:
            places = np.sort(shard.collect(shard.to_global(index[ties])))
            ties = ties[shard.to_global(index[ties]) <= places[room - 1]]
        else:
            ties = ties[:room]
        keep[ties] = True
        index, value = index[keep], value[keep]
    return torch.from_numpy(index), torch.from_numpy(value)


def threshold(delta: Delta, shard: Shard, k: int) -> Threshold:
    """`magnitude_threshold` of the whole tensor, where each rank holds a part of it.

    Args:
        delta, shard, k: as `top_k`.

    Returns:
        A Threshold whose `last_tie` is a flat index in the whole tensor; the same on every rank.
    """
    if not shard.groups:
        return magnitude_threshold(lambda start, stop: _ordered(delta.block(start, stop)), shard.numel, k)
    if k <= 0:
        return KEEP_NONE
    if k >= shard.numel:
        return KEEP_ALL
    # halving on the bits of fp32 magnitudes, which are ordered as the numbers are, until few lie between
    low, high, beyond, inside = -1, 0x7F800000, 0, float(shard.numel)
    while inside > math.prod(SAMPLE) and high - low > 1:
        middle = (low + high) // 2
        count = shard.total([_count_above(delta, shard, middle)])[0]
        if count >= k:
            low, inside = middle, count - beyond
        else:
            high, inside, beyond = middle, inside - (count - beyond), count
    index, value = delta.above(_magnitude(low))
    magnitude = magnitudes(value)
    between = magnitude <= np.float32(_magnitude(high))
    magnitude, places = magnitude[between], shard.to_global(index[between])
    rank = k - int(beyond)
    if high - low > 1:
        everywhere = shard.collect(magnitude)
        bound = np.partition(everywhere, everywhere.size - rank)[everywhere.size - rank]
        rank -= int(np.count_nonzero(everywhere > bound))
    else:
        bound = np.float32(_magnitude(high))
    # ties go to the lower index: the first `rank` of all ranks' ties, of which a rank need send no more
    ties = np.sort(shard.collect(np.sort(places[magnitude == bound])[:rank]))
    return Threshold(float(bound), int(ties[rank - 1]))


def _magnitude(bits: int) -> float:
    return -1.0 if bits < 0 else float(np.array(bits, np.int32).view(np.float32))


def _count_above(delta: Delta, shard: Shard, bits: int) -> float:
    bound = _magnitude(bits)
    return float(sum(int((_ordered(delta.block(a, b)).abs() > bound).sum()) for a, b in blocks_of(shard)))


def _ordered(x: torch.Tensor) -> torch.Tensor:
    """x with inf for NaN, as `magnitudes` counts them."""
    return x.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
