"""Sparsifiers F: first a statistic of the whole tensor, then an application to any part of it.

The split is what lets one implementation serve a block of a checkpoint, a rank's shard and a whole parameter: the
statistic (a threshold, two norms) is a few numbers, and the application needs only them and the entries at hand.

Sources: TIES trim (Yadav et al. 2023, arXiv 2306.01708, §3); DARE (Yu et al. 2023, arXiv 2311.03099, §3).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch

from mergetool.ops.blocks import BLOCK, ReadBlock, spans
from mergetool.ops.noise import SPARSE_BELOW, kept_indices, random_mask

Rescale = Literal["unbiased", "l1", "none"]

_SAMPLE = 1 << 16


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

    A sample brackets the k-th largest magnitude, one pass counts what lies above the bracket and gathers what lies
    in it, and only that part is ordered: two sweeps of cheap comparisons, and no copy of the tensor. The result does
    not depend on the sample.

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
        above, inside, index = _gather(read, numel, low, high)
        rank = k - above  # the rank of the wanted magnitude within the bracket, from 1
        if rank < 1:
            low, high = high, math.inf
            continue
        if rank > inside.size:
            low, high = -1.0, low
            continue
        break
    value = float(np.partition(inside, inside.size - rank)[inside.size - rank])
    greater = above + int(np.count_nonzero(inside > np.float32(value)))
    ties = index[inside == np.float32(value)]
    return Threshold(value, int(ties[k - greater - 1]))


def _bracket(read: ReadBlock, numel: int, k: int) -> tuple[float, float]:
    """Magnitudes (low, high] that hold the k-th largest with near certainty, from an evenly spread sample."""
    if numel <= 4 * _SAMPLE:
        return -1.0, math.inf
    pieces = 64
    width = _SAMPLE // pieces
    starts = [(numel - width) * i // (pieces - 1) for i in range(pieces)]
    sample = np.sort(np.concatenate([read(s, s + width).abs().cpu().numpy() for s in starts]))[::-1]
    expected = k / numel * sample.size
    # entries of a tensor come in rows of like size, so the sample is noisier than an independent one: 12 sigma
    slack = 12.0 * math.sqrt(expected * (1 - k / numel) + 1.0) + 16
    first, last = int(expected - slack), int(expected + slack)
    high = float(sample[first]) if first >= 0 else math.inf
    low = float(sample[last]) if last < sample.size else -1.0
    # the bracket is open below: a value equal to `low` must be inside where ties abound
    low = float(np.nextafter(np.float32(low), np.float32(-1.0)))
    return low, high


def _gather(read: ReadBlock, numel: int, low: float, high: float) -> tuple[int, np.ndarray, np.ndarray]:
    """Count |x| > high; collect the magnitudes in (low, high] with their flat indices, in index order."""
    above = 0
    values, indices = [], []
    for start, stop in spans(numel):
        magnitude = read(start, stop).abs().cpu().numpy()
        over = magnitude > np.float32(low)
        if high != math.inf:
            beyond = magnitude > np.float32(high)
            above += int(np.count_nonzero(beyond))
            over ^= beyond
        index = np.flatnonzero(over)
        if index.size:
            values.append(magnitude[index])
            indices.append(index + start)
    if not values:
        return above, np.empty(0, np.float32), np.empty(0, np.int64)
    return above, np.concatenate(values), np.concatenate(indices)


def trim(x: torch.Tensor, threshold: Threshold, start: int = 0) -> torch.Tensor:
    """Zero, in place, the entries of `x` below a magnitude threshold.

    Args:
        x: fp32, flat part [start, start + x.numel()) of the tensor that the threshold was taken of.
        threshold: from `magnitude_threshold`.
        start: flat index of the first entry.

    Returns:
        `x`.
    """
    if threshold.value < 0:
        return x
    ties_here = threshold.last_tie + 1 - start
    magnitude = x.abs()
    if ties_here >= x.numel():
        keep = magnitude >= threshold.value
    else:
        keep = magnitude > threshold.value
        if ties_here > 0:
            keep[:ties_here] |= magnitude[:ties_here] == threshold.value
    return x.mul_(keep.view(torch.int8))


def drop(x: torch.Tensor, key: int, density: float, start: int = 0) -> torch.Tensor:
    """Zero, in place, the entries that the random sparsifier does not keep (DARE, before rescaling).

    Args:
        x: fp32, flat part [start, start + x.numel()) of a tensor.
        key: from `mergetool.ops.noise.stream_key`.
        density: probability to be kept. Below `SPARSE_BELOW` the sparse sampler decides, else the dense one.
        start: flat index of the first entry.

    Returns:
        `x`.
    """
    if density >= 1.0:
        return x
    if density < SPARSE_BELOW:
        index = kept_indices(key, density, start, x.numel(), x.device)
        kept = x[index]
        return x.zero_().index_copy_(0, index, kept)
    return x.mul_(random_mask(key, density, start, x.numel(), x.device).view(torch.int8))


def rescale_factor(rescale: Rescale, density: float, before: float = 0.0, after: float = 0.0) -> float:
    """What survivors are multiplied by.

    Args:
        rescale: ``unbiased``: 1/density (DARE, Eq. 4), so that the expectation is the unsparsified delta; ``l1``:
            ‖x‖₁/‖F(x)‖₁, as mergekit does, 1 where either norm is below 1e-7; ``none``: 1.
        density: the fraction kept.
        before, after: L1 norms of the delta before and after; read by ``l1`` alone.
    """
    if rescale == "unbiased":
        return 1.0 / density if density > 0 else 1.0
    if rescale == "l1":
        return before / after if before >= 1e-7 and after >= 1e-7 else 1.0
    return 1.0


def l1_norm(read: ReadBlock, numel: int) -> float:
    """‖x‖₁, summed block by block in index order: fp32 within a block, fp64 between blocks."""
    return math.fsum(float(read(a, b).abs().sum()) for a, b in spans(numel, BLOCK))
