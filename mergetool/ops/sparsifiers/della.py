"""DELLA's sparsifier: the larger an entry within its row, the likelier it is kept.

Source: Deep, Bhardwaj & Poria 2024, DELLA-Merging (MagPrune), arXiv 2406.11617, §3.1; ranks as mergekit's
`della_magprune`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from mergetool.ops.noise import lanes, lanes_on
from mergetool.ops.sparsifiers import Sparsifier, WholeDelta


def drop_ranked(x: torch.Tensor, key: int, density: float, epsilon: float, row: int, start: int = 0, *, unbiased: bool) -> int:
    """Zero, in place, the entries that MagPrune does not keep.

    The probability to be kept rises with the rank of the magnitude in its row from density − epsilon to
    density + epsilon, in steps of 2⁻¹⁶; equal magnitudes rank by their index.

    Args:
        x: fp32, whole rows: flat part [start, start + x.numel()) of a tensor, both multiples of `row`.
        key: from `mergetool.ops.noise.stream_key`.
        density: mean probability to be kept.
        epsilon: half the range of probabilities; density ± epsilon must lie in (0, 1).
        row: entries in a row.
        start: flat index of the first entry.
        unbiased: multiply survivors by the inverse of their own probability (the paper's rescaling).

    Returns:
        How many entries were kept.

    Raises:
        ValueError: density ± epsilon leaves (0, 1).
    """
    if not (density - epsilon > 0.0 and density + epsilon < 1.0):
        raise ValueError(f"density ± epsilon must lie in (0, 1), not {density} ± {epsilon}")
    steps = torch.arange(row, dtype=torch.float64) / max(row - 1, 1)
    by_rank = ((density - epsilon + 2 * epsilon * steps) * (1 << 16)).round().to(torch.int32)
    if x.device.type == "cpu":
        quota = by_rank.numpy()[_ranks(x.numpy().reshape(-1, row))].reshape(-1)
        keep = torch.from_numpy(lanes(key, start, x.numel()) < quota)
        quota = torch.from_numpy(quota)
    else:
        order = x.abs().view(-1, row).argsort(dim=1, stable=True)
        quota = torch.empty_like(order, dtype=torch.int32)
        quota.scatter_(1, order, by_rank.to(x.device).expand(order.shape[0], -1))
        quota = quota.view(-1)
        keep = lanes_on(x.device, key, start, x.numel()) < quota
    x.mul_(keep.view(torch.int8))
    if unbiased:
        x.mul_(65536.0 / quota)
    return int(keep.sum())


def _ranks(rows: np.ndarray) -> np.ndarray:
    """Rank of each magnitude in its row, from 0; one vectorised sort of (magnitude, index) pairs packed in a word."""
    packed = np.abs(rows).view(np.uint32).astype(np.uint64) << np.uint64(32)
    packed |= np.arange(rows.shape[1], dtype=np.uint64)
    packed.sort(axis=1)
    order = (packed & np.uint64(0xFFFFFFFF)).astype(np.intp)
    ranks = np.empty(rows.shape, np.intp)
    np.put_along_axis(ranks, order, np.arange(rows.shape[1])[None, :], axis=1)
    return ranks


class RankedMask(NamedTuple):
    """The arguments of `drop_ranked` that stay the same for every block."""

    key: int
    density: float
    epsilon: float
    row: int
    unbiased: bool


class MagPrune(Sparsifier):
    """Keeps an entry with a probability that rises with the rank of its magnitude in its row."""

    whole_rows = True
    rescales = frozenset(["unbiased"])  # each survivor by the inverse of its own probability

    def statistic(self, delta: WholeDelta) -> RankedMask:
        """Nothing of the entries: ranks are taken row by row, when they come."""
        options = delta.options
        return RankedMask(delta.key, delta.density, options["epsilon"], delta.row, options["rescale"] in self.rescales)

    def apply(self, x: torch.Tensor, statistic: RankedMask, start: int) -> int:
        """As `Sparsifier.apply`."""
        key, density, epsilon, row, unbiased = statistic
        return drop_ranked(x, key, density, epsilon, row, start, unbiased=unbiased)


SPARSIFIER = MagPrune()
