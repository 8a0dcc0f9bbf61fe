"""Random masks: which entries a random sparsifier keeps.

Two samplers, and the density alone says which one is used: from `SPARSE_BELOW` on the dense one decides every entry by
16 bits; below it the sparse one draws the entries kept, at a cost that follows their number. Both read the streams of
`noise`, so that a decision depends on (key, flat index) alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from mergetool.ops.blocks import scratch
from mergetool.ops.noise import lanes_at_on, lanes_on, signed, words_at, words_at_on, words_here

SPARSE_BELOW = 1 / 32
"""Densities below this use the sparse sampler, whose cost follows the entries kept, not the entries."""

CELL = 1 << 16
"""Elements in a cell of the sparse sampler."""

_TIE = 0xD1B54A32D192ED03  # separates the stream that decides ties from the one that draws lanes
_COUNT = 0x8CB92BA72F3D8DD7  # separates the stream of hits per cell from the one of their positions


def random_mask(key: int, density: float, start: int, count: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """The dense sampler: keep each entry independently with probability `density`.

    Sixteen bits decide an entry; where they equal the threshold (one entry in 65,536) 53 further bits decide, so
    that the probability is `density` to within 2⁻⁶⁹ of a unit, not to within 2⁻¹⁷.

    Args:
        key: from `stream_key`.
        density: p in [0, 1].
        start: flat index of the first entry.
        count: number of entries.
        device: where the mask is made; the decisions do not depend on it.

    Returns:
        torch.bool, shape (count,): True where the entry is kept.
    """
    if torch.device(device).type != "cpu":
        return random_mask_on(device, key, density, start, count)
    return torch.from_numpy(_random_mask(np.empty(count, np.bool_), key, density, start))


def random_mask_here(key: int, density: float, start: int, count: int) -> np.ndarray:
    """`random_mask` on a CPU, in a buffer of this thread that its next call overwrites: np.bool_."""
    return _random_mask(scratch("mask", count, np.bool_), key, density, start)


def _random_mask(mask: np.ndarray, key: int, density: float, start: int) -> np.ndarray:
    whole, tie = lane_threshold(density)
    if whole >= 1 << 16:
        mask.fill(True)
        return mask
    first, skip = start // 4, start % 4
    count = (start + mask.size + 3) // 4 - first
    drawn = words_here(key, first, count).view(np.uint16)[skip : skip + mask.size]
    np.less(drawn, np.uint16(whole), out=mask)
    if tie:
        ties = np.flatnonzero(drawn == np.uint16(whole))
        if ties.size:
            mask[ties] = words_at(key ^ _TIE, ties + start) >> np.uint64(11) < np.uint64(tie)
    return mask


def random_mask_on(device: torch.device | str, key: int, density: float, start: int, count: int) -> torch.Tensor:
    """`random_mask` in torch operations alone, for any device: the same decisions."""
    whole, tie = lane_threshold(density)
    if whole >= 1 << 16:
        return torch.ones(count, dtype=torch.bool, device=device)
    drawn = lanes_on(device, key, start, count)
    mask = drawn < whole
    if tie:
        ties = torch.nonzero(drawn == whole).flatten()
        mask[ties] = words_at_on(key ^ _TIE, ties + start).bitwise_right_shift_(11) & ((1 << 53) - 1) < tie
    return mask


def lane_threshold(density: float) -> tuple[int, int]:
    """(whole, tie): keep where 16 bits are below `whole`, or equal it and 53 further bits are below `tie`."""
    if not 0.0 <= density <= 1.0:
        raise ValueError(f"density must lie in [0, 1], not {density}")
    scaled = density * (1 << 16)
    whole = int(scaled)
    return whole, round((scaled - whole) * (1 << 53))


def kept_at(key: torch.Tensor, whole: torch.Tensor, tie: torch.Tensor, index: torch.Tensor, tied: bool = True) -> torch.Tensor:
    """The dense sampler's decisions for any entries, as one elementwise function for torch.compile.

    Args:
        key: int64, no dimensions.
        whole, tie: the density as `lane_threshold` gives it; int64, no dimensions.
        index: int64, flat indices.
        tied: False where `tie` is 0, and one word an entry is enough.

    Returns:
        torch.bool, `index`'s shape: what `random_mask` says of them.
    """
    lane = lanes_at_on(key, index)
    keep = lane < whole
    if not tied:
        return keep
    further = words_at_on(key ^ signed(_TIE), index).bitwise_right_shift_(11).bitwise_and_((1 << 53) - 1)
    return keep | ((lane == whole) & (further < tie))


def kept_indices(key: int, density: float, start: int, count: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """The sparse sampler: the entries kept, at a cost that follows their number.

    Hits fall on a cell of 65,536 entries as a Poisson process of rate −ln(1 − p) an entry, and an entry that is hit
    at least once is kept: exactly independent Bernoulli(p) decisions, with no rejection. The number of hits comes
    from one word through the inverse distribution, each position from 16 bits.

    Args:
        key, density, start, count, device: as `random_mask`.

    Returns:
        torch.int64, shape (kept,): ascending, relative to `start`.
    """
    return torch.from_numpy(kept_indices_of([(key, start, count)], density)[0]).to(device)


def kept_indices_of(parts: Sequence[tuple[int, int, int]], density: float) -> list[np.ndarray]:
    """`kept_indices` of many streams at once: a model has hundreds of tensors, and most are a few cells.

    Args:
        parts: (key, start, count) of each.
        density: p in [0, 1), the same for all.

    Returns:
        For each part its kept entries: int64, ascending, relative to `start`.
    """
    if not 0.0 <= density < 1.0:
        raise ValueError(f"the sparse sampler takes a density in [0, 1), not {density}")
    if density == 0.0 or not parts:
        return [np.empty(0, np.int64) for _ in parts]
    table = _poisson_table(-math.log1p(-density) * CELL)
    # the cells of all parts, one after the other: (whose, key, its number in the tensor)
    spans = [(start // CELL, -(-(start + count) // CELL)) if count else (0, 0) for _, start, count in parts]
    sizes = np.array([last - first for first, last in spans], np.int64)
    owner = np.repeat(np.arange(len(parts)), sizes)
    keys = np.array([key for key, _, _ in parts], np.uint64)[owner]
    cells = np.concatenate([np.empty(0, np.int64), *(np.arange(first, last) for first, last in spans)])
    origin = cells * CELL - np.array([start for _, start, _ in parts], np.int64)[owner]
    lanes_per_cell = -(-len(table) // 4) * 4
    rows = max(1, (1 << 16) // lanes_per_cell)  # larger ones would be mapped anew for every batch
    found, counts = [], []
    for low in range(0, cells.size, rows):
        part = slice(low, low + rows)
        index, kept = _kept_in_cells(keys[part], cells[part], origin[part], table, lanes_per_cell)
        found.append(index)
        counts.append(kept)
    everything = np.concatenate([np.empty(0, np.int64), *found])
    per_part = np.bincount(owner, weights=np.concatenate([np.empty(0), *counts]), minlength=len(parts)).astype(np.int64)
    out = np.split(everything, np.cumsum(per_part)[:-1])
    # a part may begin and end within a cell
    ends = [np.searchsorted(index, (0, count)) for index, (_, _, count) in zip(out, parts, strict=True)]
    return [index[low:high] for index, (low, high) in zip(out, ends, strict=True)]


def _kept_in_cells(
    keys: np.ndarray, cells: np.ndarray, origin: np.ndarray, table: np.ndarray, lanes_per_cell: int
) -> tuple[np.ndarray, np.ndarray]:
    """(kept entries of all cells, counted from `origin` of each; how many each cell has)."""
    number = cells.astype(np.uint64)
    hits = np.searchsorted(table, (words_at(keys ^ np.uint64(_COUNT), number) >> np.uint64(1)).view(np.int64), side="right")
    width = int(hits.max(initial=0))
    first = number * np.uint64(lanes_per_cell // 4)
    drawn = words_at(keys[:, None], first[:, None] + np.arange(-(-width // 4), dtype=np.uint64))
    position = drawn.view(np.uint16)[:, :width].astype(np.int32)
    position |= (np.arange(width) >= hits[:, None]).astype(np.int32) << 16  # CELL or more: sorts to the end
    position.sort(axis=1)
    keep = position < CELL
    keep[:, 1:] &= position[:, 1:] != position[:, :-1]
    return (position + origin[:, None])[keep], np.count_nonzero(keep, axis=1)


@lru_cache(maxsize=64)
def _poisson_table(rate: float) -> np.ndarray:
    """Cumulative Poisson probabilities in units of 2⁻⁶³, up to where the tail is below that."""
    length = int(rate + 14 * math.sqrt(rate) + 40)
    log_rate = math.log(rate)
    total, table = 0.0, []
    for n in range(length):
        total += math.exp(n * log_rate - rate - math.lgamma(n + 1))
        table.append(min(int(total * (1 << 63)), (1 << 63) - 1))
    array = np.array(table, dtype=np.int64)
    array.setflags(write=False)
    return array
