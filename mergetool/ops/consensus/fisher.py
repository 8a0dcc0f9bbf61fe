"""Fisher merging: each entry is the mean of the models', weighted by how much each model's own answers depend on it.

θ = Σ wᵢ (Fᵢ + φ) θᵢ / Σ wᵢ (Fᵢ + φ), F the diagonal of the Fisher information and φ a floor that makes an entry without
information the weighted mean. Written around the model of largest weight, so that models that are equal give the model back
bit for bit; the shares are fp64.

Source: Fisher merging, Matena & Raffel 2022, arXiv 2111.09832, section 2.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from mergetool.ops.blocks import ReadBlock
from mergetool.ops.consensus import Buffer, Consensus, WholeInputs, normalized
from mergetool.ops.consensus.linear import blend


class Information(NamedTuple):
    """What is known of a tensor that several models have.

    Args:
        reads: of each model: gives blocks of F, fp32, which are not written to.
        units: of each model: the mean of F over all of its tensors; at least one is above 0.
    """

    reads: tuple[ReadBlock, ...]
    units: tuple[float, ...]


class Shares(NamedTuple):
    """One tensor, before its entries come.

    Args:
        weights: of the models, their sum 1.
        reads: of their F; none: the weighted mean.
        scales: what each F is multiplied by.
        floor: what is then added to it.
    """

    weights: list[float]
    reads: tuple[ReadBlock, ...] = ()
    scales: tuple[float, ...] = ()
    floor: float = 0.0
    start: int = 0
    stop: int = 0


class Fisher(Consensus):
    """Σ wᵢ (Fᵢ + φ) θᵢ / Σ wᵢ (Fᵢ + φ)."""

    def statistic(self, inputs: WholeInputs) -> Shares:
        """The weights, and F in units of its mean, of each model or of the one where it is largest: φ is then a number."""
        known: Information | None = inputs.known
        weights = normalized(inputs.weights)
        if known is None:
            return Shares(weights)
        largest = max(known.units)
        units = [unit or largest for unit in known.units] if inputs.options["normalize_fisher"] else [largest] * len(weights)
        return Shares(weights, known.reads, tuple(1 / unit for unit in units), inputs.options["floor"])

    def at(self, statistic: Shares, start: int, stop: int) -> Shares:
        """Where the block lies too."""
        return statistic._replace(start=start, stop=stop)

    def combine(self, parts: Sequence[torch.Tensor], statistic: Shares, buffer: Buffer) -> torch.Tensor:
        """As `Consensus.combine`."""
        weights, reads, scales, floor, start, stop = statistic
        if len(parts) == 1:
            return parts[0]
        out = buffer("mixed")
        if not reads:
            return blend(parts, weights, out)
        device = parts[0].device
        parts_of_total = [
            read(start, stop).to(device).double().mul_(scale).add_(floor).mul_(w)
            for w, read, scale in zip(weights, reads, scales, strict=True)
        ]
        total = torch.stack(parts_of_total).sum(0)
        anchor = weights.index(max(weights))
        away = torch.zeros_like(total)
        for i, (part, share) in enumerate(zip(parts, parts_of_total, strict=True)):
            if i != anchor:
                away += share.div_(total).mul_(parts[anchor].double().sub_(part))
        away += 0.0  # no zero with a sign, which would change the anchor's
        return out.copy_(parts[anchor].double().sub_(away))


CONSENSUS = Fisher()
