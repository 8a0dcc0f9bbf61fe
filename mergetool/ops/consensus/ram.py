"""Reinforced Agent Merging: what one model alone has changed is kept whole, what several have changed is averaged.

Source: arXiv 2601.13572; mergekit 0.1.5's ram.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from mergetool.ops.consensus import Buffer, Consensus, WholeInputs


class Changes(NamedTuple):
    """What counts as a change, and each model's factor for entries that it alone has changed."""

    floor: float
    factors: list[float]


def changed(deltas: Sequence[torch.Tensor], floor: float, masks: Sequence[torch.Tensor], count: torch.Tensor) -> None:
    """Where each delta is larger than `floor`, and how many are.

    Args:
        deltas: fp32, one shape; not changed.
        floor: a magnitude.
        masks: like the deltas; get 1.0 and 0.0.
        count: like a delta; gets the number of deltas.
    """
    count.zero_()
    for delta, mask in zip(deltas, masks, strict=True):
        count.add_(torch.gt(torch.abs(delta, out=mask), floor, out=mask))


class Ram(Consensus):
    """Σ δᵢ over the models that changed an entry, divided by their number."""

    def statistic(self, inputs: WholeInputs) -> Changes:
        """Nothing of the entries."""
        return Changes(inputs.options["epsilon"], [1.0] * len(inputs.reads))

    def combine(self, parts: Sequence[torch.Tensor], statistic: Changes, buffer: Buffer) -> torch.Tensor:
        """As `Consensus.combine`."""
        masks = [buffer(f"changed {i}") for i in range(len(parts))]
        count, alone, total = buffer("count"), buffer("alone"), buffer("mixed").zero_()
        changed(parts, statistic.floor, masks, count)
        torch.eq(count, 1.0, out=alone)
        count.clamp_min_(1.0)
        for part, mask, factor in zip(parts, masks, statistic.factors, strict=True):
            part.mul_(mask).div_(count)
            if factor != 1.0:
                part.mul_(torch.mul(alone, factor - 1.0, out=mask).add_(1.0))
            total.add_(part)
        return total


CONSENSUS = Ram()
