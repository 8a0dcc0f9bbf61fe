"""How several deltas become one: sums, sign election, and the two interpolations.

Sign election follows TIES (Yadav et al. 2023, arXiv 2306.01708, §3) on weighted deltas, as mergekit does it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

_ZERO = torch.zeros(())


def normalized(weights: Sequence[float]) -> list[float]:
    """The weights divided by their sum; unchanged where that sum is below 1e-8, as mergekit does."""
    total = math.fsum(weights)
    return [w / total for w in weights] if abs(total) >= 1e-8 else list(weights)


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


def elect_sign(weighted: Sequence[torch.Tensor], out: torch.Tensor | None = None) -> torch.Tensor:
    """The elected sign of every entry: +1 where Σ wᵢ·δᵢ ≥ 0 (a zero sum elects +), else −1.

    Args:
        weighted: the deltas, weights applied; fp32, one shape.
        out: fp32, their shape; made where it is None.

    Returns:
        `out`.
    """
    out = torch.empty_like(weighted[0]) if out is None else out
    out.copy_(weighted[0]) if len(weighted) == 1 else torch.add(weighted[0], weighted[1], out=out)
    for delta in weighted[2:]:
        out.add_(delta)
    # comparisons that write floats run at the speed of an addition, those that write booleans at a fifth of it
    return torch.ge(out, 0, out=out).mul_(2).sub_(1)


def sign_consensus(
    weighted: Sequence[torch.Tensor],
    weights: Sequence[float],
    *,
    normalize: bool = False,
    scratch: Sequence[torch.Tensor | None] = (None, None),
) -> torch.Tensor:
    """TIES' elect and disjoint merge: sum the entries whose sign is the elected one.

    Args:
        weighted: the deltas, weights applied; fp32, one shape; overwritten.
        weights: the weights that were applied; used by `normalize` alone.
        normalize: divide each entry by the sum of the weights that took part in it (by 1 where that is 0).
        scratch: two tensors like the deltas to work in; made where they are None.

    Returns:
        fp32, the deltas' shape; one of the tensors given, or a new one.
    """
    sign = elect_sign(weighted, scratch[0])
    total, divisor = weighted[0], weighted[0]
    for i, (delta, weight) in enumerate(zip(weighted, weights, strict=True)):
        agreeing = delta.mul_(sign).clamp_min_(0)  # its magnitude where the signs agree, else 0
        if i > 0:
            total.add_(agreeing)
        if normalize and i == 0:
            total = agreeing.clone() if scratch[1] is None else scratch[1].copy_(agreeing)
            divisor.sign_().mul_(weight)
        elif normalize:
            divisor.add_(agreeing.sign_(), alpha=weight)
    total.mul_(sign)
    if normalize:
        divisor.add_(torch.eq(divisor, 0, out=sign))
        total.div_(divisor)
    return total


def pairwise_sign_consensus(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a ⊕sign b of [OMO] Eq. 6: a + b where the signs agree, else the one of larger magnitude (both where equal).

    Args:
        a, b: fp32, one shape, weights applied.

    Returns:
        fp32, their shape. An entry that is 0 on one side takes the other side's value.
    """
    # |a| = |b| with opposite signs leaves a + b = 0: "both where equal"
    return torch.where((a.sign() * b.sign() >= 0) | (a.abs() == b.abs()), a + b, torch.where(a.abs() > b.abs(), a, b))


def lerp(a: torch.Tensor, b: torch.Tensor, t: float, out: torch.Tensor | None = None) -> torch.Tensor:
    """(1 − t)·a + t·b, exactly `a` at t = 0 and exactly `b` at t = 1 (Wortsman et al. 2021, arXiv 2109.01903)."""
    return torch.lerp(a, b, t, out=out)


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
