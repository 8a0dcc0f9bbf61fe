"""SCE: select where deltas differ most, calculate a weight for each by its size, erase what disagrees in sign.

Source: Wan et al. 2024, arXiv 2408.07990 (FuseChat); mergekit 0.1.5's sce.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from mergetool.ops.consensus import Buffer, Consensus, WholeInputs
from mergetool.ops.consensus.sign import elect_sign
from mergetool.ops.threshold import KEEP_ALL, KEEP_NONE, Threshold, kept_as_floats, magnitude_threshold

_LEAST = 1e-6  # a sum of weights below it is none


class Selection(NamedTuple):
    """Which entries are selected, by the variance over the models, and the weight of each model."""

    threshold: Threshold
    weights: list[float]


class Part(NamedTuple):
    """A `Selection` for the entries from `start` on."""

    selection: Selection
    start: int


class Sce(Consensus):
    """Σ wᵢ·δᵢ / Σ wᵢ over the deltas of the elected sign, at the entries of largest variance; wᵢ ∝ mean square of δᵢ."""

    def statistic(self, inputs: WholeInputs) -> Selection:
        """A reading for the weights, and two or three for the threshold where not everything is selected."""
        threshold, squares = self._threshold(inputs), [0.0] * len(inputs.reads)
        for start, stop in inputs.spans():
            deltas = [read(start, stop) for read in inputs.reads]
            mask = _selected(deltas, threshold, start)
            for i, delta in enumerate(deltas):
                kept = delta if mask is None else delta * mask
                squares[i] += float(torch.dot(kept, kept))
        total = sum(squares)
        if total < _LEAST * max(inputs.numel, 1):  # as mergekit, which looks at means
            return Selection(threshold, [1.0 / len(squares)] * len(squares))
        return Selection(threshold, [square / total for square in squares])

    def _threshold(self, inputs: WholeInputs) -> Threshold:
        """What the k entries of largest variance have at least, k a share of those that vary at all."""
        share = inputs.options["select_topk"]
        if share >= 1.0:
            return KEEP_ALL

        def variances(start: int, stop: int) -> torch.Tensor:
            return variance([read(start, stop) for read in inputs.reads])

        varying = sum(int(torch.count_nonzero(variances(start, stop))) for start, stop in inputs.spans())
        count = int(varying * share)
        return magnitude_threshold(variances, inputs.numel, count) if count else KEEP_NONE

    def at(self, statistic: Selection, start: int, stop: int) -> Part:
        """As `Consensus.at`."""
        return Part(statistic, start)

    def combine(self, parts: Sequence[torch.Tensor], statistic: Part, buffer: Buffer) -> torch.Tensor:
        """As `Consensus.combine`."""
        (threshold, weights), start = statistic
        mask = _selected(parts, threshold, start)
        if mask is not None:
            for part in parts:
                part.mul_(mask)
        sign, total, divisor = elect_sign(parts, buffer("sign")), buffer("mixed").zero_(), buffer("divisor").zero_()
        for part, weight in zip(parts, weights, strict=True):
            agreeing = part.mul_(sign).clamp_min_(0)  # its magnitude where the signs agree, else 0
            total.add_(agreeing, alpha=weight)
            divisor.add_(agreeing.sign_(), alpha=weight)
        return total.mul_(sign).div_(divisor.clamp_min_(_LEAST))


def variance(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The population variance of each entry over tensors of one shape; fp32, taken in fp64."""
    wide = [tensor.to(torch.float64) for tensor in tensors]
    mean = wide[0].clone()
    for one in wide[1:]:
        mean.add_(one)
    mean.div_(len(wide))
    squares = torch.zeros_like(mean)
    for one in wide:
        squares.add_(one.sub_(mean).square_())
    return squares.div_(len(wide)).to(torch.float32).nan_to_num_()


def _selected(deltas: Sequence[torch.Tensor], threshold: Threshold, start: int) -> torch.Tensor | None:
    """1.0 at the entries that are selected, else 0.0; None where all are."""
    return None if threshold == KEEP_ALL else kept_as_floats(variance(deltas), threshold, start)


CONSENSUS = Sce()
