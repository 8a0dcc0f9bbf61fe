"""The arc between two models.

Source: Shoemake 1985, per tensor as in mergekit.
"""

from __future__ import annotations

import math

import torch

from mergetool.ops.consensus import WholeInputs, alone
from mergetool.ops.consensus.linear import Linear


def slerp_coefficients(dot: float, norm_a: float, norm_b: float, t: float) -> tuple[float, float]:
    """The weights of a and b in spherical interpolation, from three sums over the whole tensor.

    Falls back to (1 − t, t) where the tensors are nearly collinear (|cos| > 0.9995) or one is zero, as mergekit does.

    Args:
        dot: Σ aᵢ·bᵢ.
        norm_a, norm_b: Euclidean norms.
        t: 0 gives a, 1 gives b.
    """
    if norm_a <= 1e-8 or norm_b <= 1e-8:
        return 1.0 - t, t
    cosine = max(-1.0, min(1.0, dot / (norm_a * norm_b)))
    if abs(cosine) > 0.9995:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


class Slerp(Linear):
    """sin((1 − t)·Ω)/sin Ω · a + sin(t·Ω)/sin Ω · b, Ω the angle between the two; an end comes back byte for byte."""

    def statistic(self, inputs: WholeInputs) -> list[float]:
        """The weights of the two: three sums over both tensors."""
        t = inputs.options["t"]
        if alone(ends := [1.0 - t, t]) is not None:
            return ends
        first, second = inputs.reads
        dot = norm_a = norm_b = 0.0
        for start, stop in inputs.spans():
            x, y = first(start, stop), second(start, stop)
            dot += float(torch.dot(x, y))
            norm_a += float(torch.dot(x, x))
            norm_b += float(torch.dot(y, y))
        return list(slerp_coefficients(dot, math.sqrt(norm_a), math.sqrt(norm_b), t))


CONSENSUS = Slerp()
