"""The weighted sum of deltas, and its addition to a base.

Source: Ilharco et al. 2022, arXiv 2212.04089, §2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mergetool.ops.consensus import Buffer, Consensus, WholeInputs, normalized

_ZERO = torch.zeros(())


def weighted_sum(deltas: Sequence[torch.Tensor], weights: Sequence[float], out: torch.Tensor) -> torch.Tensor:
    """Σ wᵢ·δᵢ into `out`.

    Args:
        deltas: fp32, all of one shape; not changed.
        weights: one for each delta.
        out: fp32, their shape; may be the first delta.
    """
    torch.mul(deltas[0], weights[0], out=out)
    for delta, weight in zip(deltas[1:], weights[1:], strict=True):
        out.add_(delta, alpha=weight)
    return out


def add_delta(base: torch.Tensor, delta: torch.Tensor, scale: float, out: torch.Tensor) -> torch.Tensor:
    """base + scale·delta into `out`; where the delta is zero the base comes back bit for bit, −0.0 included.

    Args:
        base: fp32; not changed.
        delta: fp32, its shape; overwritten.
        scale: λ of task arithmetic.
        out: fp32, its shape; may be `delta`.
    """
    torch.add(_ZERO, delta, alpha=-scale, out=delta)  # 0.0 and −0.0 both become 0.0, and x − 0.0 is x for every x
    return torch.sub(base, delta, out=out)


class Sum(Consensus):
    """Σ wᵢ·δᵢ, divided by Σ wᵢ where `normalize` says so."""

    def statistic(self, inputs: WholeInputs) -> list[float]:
        """The factor of each delta."""
        weights = self.fixed_factors(inputs.weights, inputs.options)
        return [weight * scale for weight, scale in zip(weights, inputs.scales, strict=True)]

    def fixed_factors(self, weights: Sequence[float], options: Mapping[str, Any]) -> list[float]:
        """As `Consensus.coefficients`."""
        return normalized(weights) if options["normalize"] else list(weights)

    def combine(self, parts: Sequence[torch.Tensor], statistic: list[float], buffer: Buffer) -> torch.Tensor:
        """As `Consensus.combine`."""
        return weighted_sum(parts, statistic, buffer("mixed"))


CONSENSUS = Sum()
