"""Spherical interpolation of any number of models or task vectors: their mean direction, at their mean length.

Multi-SLERP goes along the sphere from the normalised mean of the unit vectors by the mean of their tangents there. That
mean is zero: Σ wᵢ·(uᵢ − (uᵢ·m)·m) = |Σ wᵢ·uᵢ|·(m − m) for m = Σ wᵢ·uᵢ/|Σ wᵢ·uᵢ|. What is left is m itself.

Source: goddard.blog/posts/multislerp-wow-what-a-cool-idea; mergekit 0.1.5's multislerp.
"""

from __future__ import annotations

import torch

from mergetool.ops.consensus import WholeInputs
from mergetool.ops.consensus.combination import Combination, norms


class MultiSlerp(Combination):
    """Σ wᵢ·|xᵢ| · m, m the direction of Σ wᵢ·xᵢ/|xᵢ|; Σ wᵢ·xᵢ where the directions cancel out."""

    def coefficients(self, gram: torch.Tensor, inputs: WholeInputs) -> torch.Tensor:
        """As `Combination.coefficients`."""
        weights = torch.tensor([inputs.weights], dtype=torch.float64)
        if weights.shape[1] == 1:
            return torch.ones_like(weights)
        if inputs.options["normalize_weights"]:
            weights = weights / weights.sum()
        eps, lengths = inputs.options["eps"], norms(gram)
        shares = torch.where(lengths > 0, weights / (lengths + eps), 0.0)
        along = (shares.unsqueeze(1) @ gram @ shares.unsqueeze(2)).flatten(1).clamp_min(0).sqrt()
        if float(along) <= eps:
            return weights
        return shares * (lengths * weights).sum() / along


CONSENSUS = MultiSlerp()
