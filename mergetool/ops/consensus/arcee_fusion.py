"""Arcee Fusion: the most important entries of a second model, put into the base.

An entry's importance is its distance times the divergence of its row: KL(softmax(row of the model) ‖ softmax(row of the base)).
Important is what lies 1.5 interquartile ranges above the median of the tensor. The divergence of two near rows is hardly larger
than the rounding of its own terms, so it is taken in fp32 in mergekit's order of operations; its quartiles, which mergekit
estimates on a sample of tensors above a million entries, are exact here.

Source: mergekit 0.1.5's arcee_fusion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from mergetool.ops.blocks import BLOCK, spans
from mergetool.ops.consensus import Buffer, Consensus, WholeInputs
from mergetool.ops.gram import Groups
from mergetool.ops.order import order_statistics

_EPS = 1e-8
_RANGES = np.float32(1.5)


class Importance(NamedTuple):
    """The rows, the divergence of each (fp32), and the importance from which an entry is taken."""

    rows: Groups
    divergence: torch.Tensor
    threshold: float


class Fusion(Consensus):
    """The other model's entry where it is important, else the base's."""

    def statistic(self, inputs: WholeInputs) -> Importance:
        """One reading for the divergences, and those of the quartiles."""
        base, other = inputs.reads
        rows = Groups.along(inputs.shape, -1)
        found = [
            _divergence(base(start, stop).view(-1, rows.length), other(start, stop).view(-1, rows.length))
            for start, stop in spans(inputs.numel, max(BLOCK // rows.length, 1) * rows.length)
        ]
        divergence = torch.cat(found).cpu()

        def importance(start: int, stop: int) -> torch.Tensor:
            distance = torch.sub(other(start, stop), base(start, stop)).abs_()
            return distance.mul_(_of_entries(rows, divergence, start, stop).to(distance.device)).nan_to_num_()

        last = inputs.numel - 1
        first, median, third = map(
            np.float32, order_statistics(importance, inputs.numel, [last // 4, last // 2, last * 3 // 4])
        )
        return Importance(rows, divergence, float(median + _RANGES * (third - first)))

    def at(self, statistic: Importance, start: int, stop: int) -> tuple[torch.Tensor, float]:
        """As `Consensus.at`: the divergence at each entry, and the threshold."""
        return _of_entries(statistic.rows, statistic.divergence, start, stop), statistic.threshold

    def combine(self, parts: Sequence[torch.Tensor], statistic: tuple[torch.Tensor, float], buffer: Buffer) -> torch.Tensor:
        """As `Consensus.combine`."""
        base, other = parts
        divergence, threshold = statistic
        importance = torch.sub(other, base, out=buffer("importance")).abs_().mul_(divergence.to(base.device))
        return torch.where(importance >= threshold, other, base, out=buffer("mixed"))


def _of_entries(rows: Groups, divergence: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    return divergence if divergence.numel() == 1 else divergence[rows.of(start, stop, divergence.device)]


def _divergence(base: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(softmax(other) ‖ softmax(base)) of each row; fp32."""
    p = torch.softmax(other, dim=-1).add_(_EPS)
    q = torch.softmax(base, dim=-1).add_(_EPS)
    return torch.sum(p * torch.log(p / q), dim=-1)


CONSENSUS = Fusion()
