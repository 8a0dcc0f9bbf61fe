"""What a step does to every entry, as plain elementwise functions that torch.compile makes one pass over memory of.

Uncompiled, each operation in them would be a pass of its own; the optimizers' general path, block by block, is the
better way then. The decisions (which entries are kept, which sums are rounded up) are the same either way; the arithmetic
agrees to within its roundings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from mergetool.ops.blocks import spans
from mergetool.ops.masks import lane_threshold
from mergetool.ops.noise import signed
from mergetool.ops.rounding import add_rounded_at
from mergetool.ops.threshold import KEEP_ALL, Threshold

SPAN = 1 << 22
"""Entries that a kernel takes at once: what a reader has to compute (an adapter's delta) is held for so many."""


def kernel_spans(numel: int) -> Iterator[tuple[int, int]]:
    """(start, stop) over `numel` entries, as many at a time as a kernel takes at once."""
    return spans(numel, SPAN)


def moments_(grad: torch.Tensor, exp_avg: torch.Tensor, exp_avg_sq: torch.Tensor, betas: torch.Tensor) -> None:
    """m ← m + (1 − β₁)·(g − m), v ← β₂·v + (1 − β₂)·g², in place.

    Args:
        grad: flat, any floating dtype.
        exp_avg, exp_avg_sq: m and v; flat, of any floating dtype, which they are rounded to.
        betas: from `beta_tensor`.
    """
    rest_of_first, second, rest_of_second = betas.unbind()
    grad = grad.float()
    exp_avg.copy_(torch.lerp(exp_avg.float(), grad, rest_of_first))
    exp_avg_sq.copy_(exp_avg_sq.float() * second + grad * (grad * rest_of_second))


def _update(exp_avg: torch.Tensor, exp_avg_sq: torch.Tensor, eta: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """Δθ, as `mergetool.optim.deltas.AdamDelta` computes it, to the bit."""
    return exp_avg.float() / (exp_avg_sq.float().sqrt() + floor) * eta


def update_(
    grad: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
    betas: torch.Tensor,
    update: torch.Tensor,
    out: torch.Tensor,
) -> None:
    """`moments_`, and the Δθ that they give.

    Args:
        grad, exp_avg, exp_avg_sq, betas: as `moments_`.
        update: from `mergetool.optim.deltas.scale_and_floor`; fp32.
        out: becomes Δθ; fp32.
    """
    moments_(grad, exp_avg, exp_avg_sq, betas)
    eta, floor = update.unbind()
    out.copy_(_update(exp_avg, exp_avg_sq, eta, floor))


def moments_above_(
    grad: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
    betas: torch.Tensor,
    bound: torch.Tensor,
    above: torch.Tensor,
) -> None:
    """`moments_`, and which entries have m² > bound·v or are NaN: |Δθ| > η·√bound implies it, since ε only lowers |Δθ|.

    Args:
        grad, exp_avg, exp_avg_sq, betas: as `moments_`.
        bound: fp32, no dimensions.
        above: torch.uint8, the shape of all; becomes 1 there, else 0.
    """
    moments_(grad, exp_avg, exp_avg_sq, betas)
    # by way of floats, which the compiler stores as bytes many at once; truth values it stores one by one
    first, second = exp_avg.float(), exp_avg_sq.float()
    above.copy_(torch.where(first * first <= bound * second, 0.0, 1.0).to(torch.uint8))


def moments_between_(
    grad: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
    betas: torch.Tensor,
    update: torch.Tensor,
    bounds: torch.Tensor,
    between: torch.Tensor,
) -> torch.Tensor:
    """`moments_`, and which entries have low ≤ |Δθ| ≤ high or are NaN.

    Args:
        grad, exp_avg, exp_avg_sq, betas: as `moments_`.
        update: from `mergetool.optim.deltas.scale_and_floor`; fp32.
        bounds: (low, high); fp32.
        between: torch.uint8, the shape of all; becomes 1 there, else 0.

    Returns:
        How many entries lie above `high`: int64, no dimensions.
    """
    moments_(grad, exp_avg, exp_avg_sq, betas)
    eta, floor = update.unbind()
    low, high = bounds.unbind()
    size = _update(exp_avg, exp_avg_sq, eta, floor).abs()
    between.copy_(torch.where((size < low) | (size > high), 0.0, 1.0).to(torch.uint8))
    return (size > high).sum()


class Draw(NamedTuple):
    """What decides in a kernel which entries are kept: tensors without dimensions, of which each `Keep` reads its own.

    Attributes:
        key, whole, tie: of a random mask, see `mergetool.ops.masks.kept_at`; int64.
        bound, last: of a magnitude threshold: fp32, and the flat index of the last tie; int64.
    """

    key: torch.Tensor
    whole: torch.Tensor
    tie: torch.Tensor
    bound: torch.Tensor
    last: torch.Tensor


Keep = Callable[[torch.Tensor, torch.Tensor, Draw], torch.Tensor]
"""``keep(x, index, draw)``: x with zeros where an entry is not kept; `index` are flat indices in the whole tensor."""
Combine = Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor], torch.Tensor]
"""``combine(delta, tau, weight_delta, weight_tau)``: F(Δ) ⊕ F(τ_s) with their weights 1 − α and α; τ_s None for zero."""


def keep_all(x: torch.Tensor, index: torch.Tensor, draw: Draw) -> torch.Tensor:
    """x itself."""
    return x


class Kind(NamedTuple):
    """What a merged step consists of; each kind is compiled once.

    Attributes:
        moments: whether m and v are updated, or have been.
        keep, combine: the operator's, elementwise functions of a module.
        clipped, stochastic: as the optimizers have it.
    """

    moments: bool
    keep: Keep
    combine: Combine
    clipped: bool
    stochastic: bool


def merged_step_(
    theta: torch.Tensor,
    grad: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
    top: torch.Tensor | None,
    bottom: torch.Tensor | None,
    numbers: torch.Tensor,
    streams: torch.Tensor,
    kind: Kind,
) -> None:
    """OnDARE's or OnTIES' step at K = 1, in place: m, v, then θ ← D·θ + w₁·F(Δθ) ⊕ w₂·F(τ_s), rounded once.

    Without τ, and with all entries kept, it is AdamW's step on a parameter whose type is too coarse for its updates.

    Args:
        theta: flat, fp32 or bf16: a part of the tensor.
        grad: any floating dtype.
        exp_avg, exp_avg_sq: m and v; any floating dtype.
        top, bottom: τ_s = top − bottom as they are stored; None for zero.
        numbers, streams, kind: from `constants`.

    Source: [OMO] Lu et al. 2024, arXiv 2405.17931, Eq. 3–7.
    """
    if kind.moments:
        moments_(grad, exp_avg, exp_avg_sq, numbers[:3])
    delta = _update(exp_avg, exp_avg_sq, numbers[3], numbers[4])
    theta.copy_(_merged(theta, delta, top, bottom, numbers, streams, kind))


def merged_since_(
    theta: torch.Tensor,
    anchor: torch.Tensor,
    top: torch.Tensor | None,
    bottom: torch.Tensor | None,
    numbers: torch.Tensor,
    streams: torch.Tensor,
    kind: Kind,
) -> None:
    """The merge of Step-K, in place: θ ← D·a + w₁·F(θ − D·a) ⊕ w₂·F(τ_s), and the anchor a is that too.

    Args:
        theta, anchor: flat, fp32 or bf16: a part of the tensor.
        top, bottom, numbers, streams, kind: as `merged_step_`.

    Source: [OMO] Lu et al. 2024, arXiv 2405.17931, Algorithm 2.
    """
    delta = theta.float() - anchor.float() * (1 + numbers[-3])
    merged = _merged(anchor, delta, top, bottom, numbers, streams, kind)
    theta.copy_(merged)
    anchor.copy_(merged)


def _merged(
    base: torch.Tensor,
    delta: torch.Tensor,
    top: torch.Tensor | None,
    bottom: torch.Tensor | None,
    numbers: torch.Tensor,
    streams: torch.Tensor,
    kind: Kind,
) -> torch.Tensor:
    """D·base + w₁·F(Δ) ⊕ w₂·F(τ_s), rounded to `base`'s type."""
    scale_delta, scale_tau, clip, weight_delta, weight_tau, shrink, bound_delta, bound_tau = numbers[5:].unbind()
    key_delta, key_tau, key_rounding, whole, tie, last_delta, last_tau, start = streams.unbind()
    index = torch.arange(base.numel(), device=base.device) + start

    def sparse(x: torch.Tensor, draw: Draw, scale: torch.Tensor) -> torch.Tensor:
        kept = kind.keep(x, index, draw) * scale
        return torch.maximum(torch.minimum(kept, clip), -clip) if kind.clipped else kept

    delta = sparse(delta, Draw(key_delta, whole, tie, bound_delta, last_delta), scale_delta)
    tau = None
    if top is not None:
        tau = top.float() if bottom is None else top.float() - bottom.float()
        tau = sparse(tau, Draw(key_tau, whole, tie, bound_tau, last_tau), scale_tau)
    total = kind.combine(delta, tau, weight_delta, weight_tau)
    total = total + shrink * base.float()
    return add_rounded_at(base, total, key_rounding, index) if kind.stochastic else (base.float() + total).to(base.dtype)


def beta_tensor(betas: tuple[float, float]) -> torch.Tensor:
    """(1 − β₁, β₂, 1 − β₂): fp32."""
    return torch.tensor([1 - betas[0], betas[1], 1 - betas[1]])


def constants(
    betas: tuple[float, float],
    update: tuple[float, float],
    *,
    combine: Combine,
    keep: Keep = keep_all,
    moments: bool = True,
    density: float = 1.0,
    bounds: tuple[Threshold, Threshold] = (KEEP_ALL, KEEP_ALL),
    scales: tuple[float, float] = (1.0, 1.0),
    alpha: float = 0.0,
    clip: float | None = None,
    decay: float = 1.0,
    keys: tuple[int, int, int] = (0, 0, 0),
    start: int = 0,
    stochastic: bool,
) -> tuple[torch.Tensor, torch.Tensor, Kind]:
    """What `merged_step_` takes beside the tensors.

    Args:
        betas: (β₁, β₂).
        update: from `mergetool.optim.deltas.scale_and_floor`; read by `merged_step_` alone.
        combine, keep: the operator's.
        moments: whether m and v are still to be updated.
        density: p of a random mask.
        bounds: of magnitudes of Δθ and τ_s.
        scales: the rescaling of Δθ and τ_s.
        alpha: α.
        clip: as the optimizers have it.
        decay: D, 1 − η·λ or, for Step-K, the product of these since the last merge.
        keys: streams of Δθ's mask, τ_s' mask and the rounding.
        start: flat index in the whole tensor of the rank's first entry; add to the last of `streams` for a later part.
        stochastic: how the sum is rounded.

    Returns:
        (numbers: fp32, streams: int64, the kind). All that changes from step to step is in the tensors, so that it
        compiles nothing anew.
    """
    whole, tie = lane_threshold(density)
    of_delta, of_tau = bounds
    numbers = [
        1 - betas[0], betas[1], 1 - betas[1], *update, *scales, clip or 0.0, 1 - alpha, alpha, decay - 1,
        of_delta.value, of_tau.value,
    ]  # fmt: skip
    streams = [*(signed(key) for key in keys), whole, tie, of_delta.last_tie, of_tau.last_tie, start]
    return (
        torch.tensor(numbers, dtype=torch.float32),
        torch.tensor(streams, dtype=torch.int64),
        Kind(moments, keep, combine, clip is not None, stochastic),
    )
