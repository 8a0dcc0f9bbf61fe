"""Sign election: entries that disagree with the elected sign are dropped.

Follows TIES (Yadav et al. 2023, arXiv 2306.01708, §3) on weighted deltas, as mergekit does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from mergetool.ops.consensus import Buffer, Consensus, WholeInputs


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


class Vote(NamedTuple):
    """Each delta's weight and what it is multiplied by, and whether entries are divided by the weights that took part."""

    weights: list[float]
    factors: list[float]
    normalize: bool


class Sign(Consensus):
    """TIES' elect and disjoint merge."""

    def statistic(self, inputs: WholeInputs) -> Vote:
        """Nothing of the entries."""
        factors = [weight * scale for weight, scale in zip(inputs.weights, inputs.scales, strict=True)]
        return Vote(list(inputs.weights), factors, inputs.options["normalize"])

    def combine(self, parts: Sequence[torch.Tensor], statistic: Vote, buffer: Buffer) -> torch.Tensor:
        """As `Consensus.combine`."""
        for part, factor in zip(parts, statistic.factors, strict=True):
            if factor != 1.0:
                part.mul_(factor)
        scratch = buffer("sign"), buffer("total")
        return sign_consensus(parts, statistic.weights, normalize=statistic.normalize, scratch=scratch)


CONSENSUS = Sign()
