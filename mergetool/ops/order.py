"""Entries of a tensor of any size by their place in ascending order, found without sorting it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from mergetool.ops.blocks import ReadBlock, spans
from mergetool.ops.threshold import magnitude_threshold


def order_statistics(read: ReadBlock, numel: int, places: Sequence[int]) -> list[float]:
    """The entries at some places of the ascending order.

    Args:
        read: gives fp32 blocks of the flat tensor; NaN must not occur.
        numel: entries in the tensor, at least 1.
        places: each 0 ≤ place < numel; 0 is the least entry.

    Returns:
        The values, exactly: those that are negative selected among the magnitudes of min(x, 0), the others among max(x, 0).
    """
    negative, least, most = 0, math.inf, -math.inf
    for start, stop in spans(numel):
        block = read(start, stop)
        negative += int((block < 0).sum())
        least, most = min(least, float(block.min())), max(most, float(block.max()))

    def value(place: int) -> float:
        if place in (0, numel - 1):
            return least if place == 0 else most
        if place < negative:
            return -magnitude_threshold(lambda a, b: torch.clamp_max(read(a, b), 0.0), numel, place + 1).value
        return magnitude_threshold(lambda a, b: torch.clamp_min(read(a, b), 0.0), numel, numel - place).value

    return [value(place) for place in places]
