"""The straight line between models: their weighted mean.

Source: Wortsman et al. 2021, arXiv 2109.01903, Eq. 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mergetool.ops.consensus import Buffer, Consensus, WholeInputs, alone, normalized


def blend(tensors: Sequence[torch.Tensor], weights: Sequence[float], out: torch.Tensor) -> torch.Tensor:
    """Σ wᵢ·xᵢ of models, not of deltas, exact where it can be.

    Written around the model of largest weight, s·xₐ − Σ wᵢ·(xₐ − xᵢ) with s = Σ wᵢ: models that are equal give the
    model back bit for bit, the sign of a zero included, and so do weights of 1 and 0.

    Args:
        tensors: fp32, one shape; not changed.
        weights: one for each tensor.
        out: fp32, their shape; may not be one of `tensors`.
    """
    total = math.fsum(weights)
    anchor = max(range(len(weights)), key=lambda i: weights[i])
    out.zero_()
    for i, (tensor, weight) in enumerate(zip(tensors, weights, strict=True)):
        if i != anchor and weight != 0.0:
            out.add_(tensors[anchor] - tensor, alpha=weight)
    if abs(total - 1.0) < 1e-12:
        return torch.sub(tensors[anchor], out, out=out)
    return out.neg_().add_(tensors[anchor], alpha=total)


def lerp(a: torch.Tensor, b: torch.Tensor, t: float, out: torch.Tensor | None = None) -> torch.Tensor:
    """(1 − t)·a + t·b, exactly `a` at t = 0 and exactly `b` at t = 1 (Wortsman et al. 2021, arXiv 2109.01903)."""
    return torch.lerp(a, b, t, out=out)


class Linear(Consensus):
    """Σ wᵢ·θᵢ, divided by Σ wᵢ where `normalize` says so; a model of weight 1 alone comes back byte for byte."""

    def statistic(self, inputs: WholeInputs) -> list[float]:
        """The weight of each model."""
        return self.fixed_factors(inputs.weights, inputs.options)

    def fixed_factors(self, weights: Sequence[float], options: Mapping[str, Any]) -> list[float]:
        """As `Consensus.coefficients`."""
        return normalized(weights) if alone(weights) is None and options["normalize"] else list(weights)

    def combine(self, parts: Sequence[torch.Tensor], statistic: list[float], buffer: Buffer) -> torch.Tensor:
        """As `Consensus.combine`."""
        only = alone(statistic)
        return blend(parts, statistic, buffer("mixed")) if only is None else parts[only]


CONSENSUS = Linear()
