"""AMA's parametrisation: free numbers w to ratios with a given mean.

Source: Lin et al. 2023, *Mitigating the Alignment Tax of RLHF*, arXiv 2309.06256, Section 5 (AMA, later HMA) and its
released code: alpha_k = mean · K · (sigmoid(w_k) + eps) / sum_j (sigmoid(w_j) + eps).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


def ratios(w: torch.Tensor, mean: float, epsilon: float = 0.2) -> torch.Tensor:
    """The share of SFT in each block.

    The formula alone leaves [0, 1] for large means; the paper asks for alpha_k in [0, 1]. So what would be above 1 is
    1, and the others share what is left in the same proportions, until none is above.

    Args:
        w: shape (K,), float; equal entries give `mean` everywhere.
        mean: of the ratios, in [0, 1]; kept exactly, up to rounding.
        epsilon: > 0; the larger, the closer together the ratios stay: none is more than (1 + eps)/eps of another.

    Returns:
        Shape (K,), w's dtype; differentiable in w.
    """
    import torch

    scores = w.sigmoid() + epsilon
    full = torch.zeros(len(w), dtype=torch.bool)
    for _ in range(len(w)):
        left = mean * len(w) - int(full.sum())
        found = torch.where(full, torch.ones_like(scores), left * scores / (scores * ~full).sum())
        above = found.detach() > 1
        if not bool(above.any()):
            return found
        full = full | above
        if bool(full.all()):
            break
    return torch.ones_like(scores)


def penalty_weights(count: int, shape: Literal["uniform", "middle"]) -> list[float]:
    """c_k of the penalty lambda · sum_k c_k · |alpha_k − mean|, one for each of `count` blocks.

    uniform: 1. middle: holds the middle most, (K − 1) / (|k − K/2| + 1). The released code has 25/(|layer − 13| + 1) for its
    model of 26 layers; this is the same there, and follows the depth elsewhere.
    """
    if shape == "uniform":
        return [1.0] * count
    return [(count - 1) / (abs(at - count / 2) + 1) for at in range(count)]
