"""The exact threshold of a magnitude trim, found in a sweep or two over a tensor of any size, and its application.

The threshold is two numbers, and applying it needs only them and the entries at hand: so one selection serves a block of
a checkpoint, a rank's shard and a whole parameter.

Source: TIES trim (Yadav et al. 2023, arXiv 2306.01708, §3).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from mergetool.ops.blocks import ReadBlock, scratch, spans

_SAMPLE, _LARGEST_SAMPLE, _PIECE = 1 << 16, 1 << 22, 1 << 12


class Threshold(NamedTuple):
    """What decides a magnitude trim: keep |x| > value, and |x| = value up to flat index `last_tie`.

    ``value`` is an fp32 magnitude; ``last_tie`` is −1 where no entry equal to it is kept.
    """

    value: float
    last_tie: int


KEEP_ALL = Threshold(-1.0, -1)
KEEP_NONE = Threshold(math.inf, -1)


def kept_count(density: float, numel: int) -> int:
    """k = ⌊density·numel⌋, at least 1 for a positive density and a tensor that is not empty (as mergekit counts).

    Raises:
        ValueError: `density` is not in [0, 1].
    """
    if not 0.0 <= density <= 1.0:
        raise ValueError(f"density must lie in [0, 1], not {density}")
    if density == 0.0 or numel == 0:
        return 0
    return max(1, int(density * numel))


def magnitude_threshold(read: ReadBlock, numel: int, k: int) -> Threshold:
    """The exact threshold that keeps the k largest magnitudes, ties broken by the lower flat index.

    A sample brackets the k-th largest magnitude; one sweep counts what lies beyond the bracket and gathers what lies
    strictly inside it (a few per cent at most: a value shared by many entries becomes an end of the bracket, and ends
    are only counted); and only that part is ordered. The result does not depend on the sample.

    Args:
        read: gives fp32 blocks of the flat tensor; NaN must not occur.
        numel: entries in the tensor.
        k: how many to keep, 0 ≤ k ≤ numel.

    Returns:
        A Threshold that keeps exactly k entries.

    Source: TIES, §3 step 1; the selection follows Floyd & Rivest 1975.
    """
    if k <= 0:
        return KEEP_NONE
    if k >= numel:
        return KEEP_ALL
    low, high = _bracket(read, numel, k)
    while True:
        greater, at_high, at_low, inside = _count(read, numel, low, high)
        rank = k - greater  # of the wanted magnitude among those ≤ high, from 1
        within = sum(part.size for part in inside)
        if rank < 1:
            low, high = high, math.inf
        elif rank <= sum(at_high):
            return _with_ties(read, numel, high, rank, at_high)
        elif (rank := rank - sum(at_high)) <= within:
            gathered = np.concatenate(inside)
            gathered.partition(within - rank)
            value = gathered[within - rank]
            rank -= int(np.count_nonzero(gathered > value))
            return _with_ties(read, numel, float(value), rank, [int(np.count_nonzero(part == value)) for part in inside])
        elif (rank := rank - within) <= sum(at_low):
            return _with_ties(read, numel, low, rank, at_low)
        else:
            low, high = -1.0, low


def _bracket(read: ReadBlock, numel: int, k: int) -> tuple[float, float]:
    """Magnitudes low ≤ high that hold the k-th largest with near certainty, from an evenly spread sample."""
    if numel <= 4 * _SAMPLE:
        return -1.0, math.inf
    pieces = min(max(numel >> 6, _SAMPLE), _LARGEST_SAMPLE) // _PIECE
    starts = [(numel - _PIECE) * i // (pieces - 1) for i in range(pieces)]
    return bracket(np.concatenate([read(s, s + _PIECE).abs().cpu().numpy() for s in starts]), k / numel)


def bracket(sample: np.ndarray, fraction: float) -> tuple[float, float]:
    """Magnitudes low ≤ high between which the largest `fraction` of a tensor ends, with near certainty.

    Args:
        sample: magnitudes of some of its entries; fp32; overwritten.
        fraction: in (0, 1).

    Returns:
        (low, high): −1 and inf where the sample ends before them.
    """
    expected = fraction * sample.size
    # entries of a tensor come in rows of like size, so the sample is noisier than an independent one: 12 sigma
    slack = 12.0 * math.sqrt(expected * (1 - fraction) + 1.0) + 16
    first, last = int(expected - slack), int(expected + slack)
    ends = np.array([sample.size - 1 - i for i in (first, last) if 0 <= i < sample.size], np.int64)
    sample.partition(ends)
    low = float(sample[sample.size - 1 - last]) if last < sample.size else -1.0
    return low, float(sample[sample.size - 1 - first]) if first >= 0 else math.inf


def magnitudes(value: np.ndarray) -> np.ndarray:
    """|x|, newly made; a NaN is in no order, so it counts as the largest, and is seen where it is kept."""
    magnitude = np.abs(value)
    magnitude[np.isnan(magnitude)] = np.inf
    return magnitude


def threshold_between(index: np.ndarray, value: np.ndarray, rank: int) -> Threshold | None:
    """The threshold that keeps the `rank` largest of some entries, None where there are not so many.

    Args:
        index: flat indices; int64, ascending.
        value: the entries; fp32.
        rank: how many to keep; None is the answer below 1 too.
    """
    if not 1 <= rank <= value.size:
        return None
    magnitude = magnitudes(value)
    bound = np.partition(magnitude, magnitude.size - rank)[magnitude.size - rank]
    rank -= int(np.count_nonzero(magnitude > bound))
    return Threshold(float(bound), int(index[magnitude == bound][rank - 1]))


def _count(read: ReadBlock, numel: int, low: float, high: float) -> tuple[int, list[int], list[int], list[np.ndarray]]:
    """(#|x| > high, then for each block #|x| = high, #|x| = low, and the magnitudes strictly between)."""
    lower, upper = np.float32(low), np.float32(high)
    greater, at_high, at_low, inside = 0, [], [], []
    for start, stop in spans(numel):
        block = read(start, stop)
        here = torch.from_numpy(scratch("magnitude", stop - start, np.float32))
        magnitude = (torch.abs(block, out=here) if block.device == here.device else here.copy_(block).abs_()).numpy()
        over, above, from_high, from_low = (scratch(f"counted {i}", stop - start, np.bool_) for i in range(4))
        beyond = int(np.count_nonzero(np.greater(magnitude, upper, out=over)))
        reached = int(np.count_nonzero(np.greater(magnitude, lower, out=above)))
        greater += beyond
        at_high.append(int(np.count_nonzero(np.greater_equal(magnitude, upper, out=from_high))) - beyond)
        at_low.append(int(np.count_nonzero(np.greater_equal(magnitude, lower, out=from_low))) - reached)
        # the ends may be shared by many entries (differences of bf16 numbers are few), so they are counted, not taken
        inside.append(np.compress(np.greater(above, from_high, out=above), magnitude))
    return greater, at_high, at_low, inside


def _with_ties(read: ReadBlock, numel: int, value: float, wanted: int, ties: list[int]) -> Threshold:
    """The threshold at `value` that keeps the first `wanted` entries of that magnitude, of which each block has `ties`."""
    if wanted == sum(ties):
        return Threshold(value, numel - 1)
    for (start, stop), here in zip(spans(numel), ties, strict=True):
        if wanted <= here:
            index = np.flatnonzero(read(start, stop).abs().cpu().numpy() == np.float32(value))
            return Threshold(value, start + int(index[wanted - 1]))
        wanted -= here
    raise AssertionError  # `ties` entries were counted


def trim(x: torch.Tensor, threshold: Threshold, start: int = 0) -> torch.Tensor:
    """Zero, in place, the entries of `x` below a magnitude threshold.

    Args:
        x: fp32, flat part [start, start + x.numel()) of the tensor that the threshold was taken of.
        threshold: from `magnitude_threshold`.
        start: flat index of the first entry.

    Returns:
        `x`.
    """
    ties_here = threshold.last_tie + 1 - start
    if threshold.value < 0:
        return x
    if 0 < ties_here < x.numel():
        return x.mul_(kept_as_floats(x, threshold, start))
    # |x| ≥ v and |x| > (the number below v) are the same: one pass for either
    bound = threshold.value if ties_here <= 0 else float(np.nextafter(np.float32(threshold.value), np.float32(-1)))
    return torch.hardshrink(x, bound, out=x)


def kept_as_floats(x: torch.Tensor, threshold: Threshold, start: int) -> torch.Tensor:
    """1.0 where an entry is kept, else 0.0: a comparison that writes floats costs a fifth of one that writes booleans."""
    ties_here = threshold.last_tie + 1 - start
    magnitude = x.abs()
    if ties_here >= x.numel():
        return torch.ge(magnitude, threshold.value, out=magnitude)
    if ties_here <= 0:
        return torch.gt(magnitude, threshold.value, out=magnitude)
    keep = (magnitude > threshold.value).float()
    keep[:ties_here] += magnitude[:ties_here] == threshold.value
    return keep
