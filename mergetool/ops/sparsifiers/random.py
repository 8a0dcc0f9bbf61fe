"""DARE's sparsifier: each entry is kept with the same probability, independently of all others.

Source: Yu et al. 2023, arXiv 2311.03099, §3.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from mergetool.ops.masks import SPARSE_BELOW, kept_indices, random_mask, random_mask_here
from mergetool.ops.sparsifiers import Sparsifier, WholeDelta


def drop(x: torch.Tensor, key: int, density: float, start: int = 0) -> int:
    """Zero, in place, the entries that the random sparsifier does not keep (DARE, before rescaling).

    Args:
        x: fp32, flat part [start, start + x.numel()) of a tensor.
        key: from `mergetool.ops.noise.stream_key`.
        density: probability to be kept. Below `SPARSE_BELOW` the sparse sampler decides, else the dense one.
        start: flat index of the first entry.

    Returns:
        How many entries were kept.
    """
    if density >= 1.0:
        return x.numel()
    if density < SPARSE_BELOW:
        index = kept_indices(key, density, start, x.numel(), x.device)
        kept = x[index]
        x.zero_().index_copy_(0, index, kept)
        return index.numel()
    if x.device.type != "cpu":
        mask = random_mask(key, density, start, x.numel(), x.device)
        x.mul_(mask.view(torch.int8))
        return int(mask.sum())
    here = random_mask_here(key, density, start, x.numel())
    x.mul_(torch.from_numpy(here.view(np.int8)))
    return int(np.count_nonzero(here))


class Mask(NamedTuple):
    """Which stream decides, and with which probability an entry is kept."""

    key: int
    density: float


class Random(Sparsifier):
    """Keeps an entry with probability `density`."""

    def statistic(self, delta: WholeDelta) -> Mask:
        """Nothing of the entries."""
        return Mask(delta.key, delta.density)

    def apply(self, x: torch.Tensor, statistic: Mask, start: int) -> int:
        """As `Sparsifier.apply`."""
        return drop(x, statistic.key, statistic.density, start)


SPARSIFIER = Random()
