"""One optimizer step as plain functions: Adam's moments and update, and the two ways to merge it with τ_s.

Source: [OMO] Lu et al. 2024, *Online Merging Optimizers*, arXiv 2405.17931, Eq. 2–7; Loshchilov & Hutter 2019,
arXiv 1711.05101, for the decoupled weight decay.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Literal

import torch

from mergetool.ops.blocks import spans
from mergetool.ops.consensus.sign import pairwise_sign_consensus
from mergetool.optim.deltas import block_size
from mergetool.optim.private_torch import fused_adamw_

Elect = Literal["weighted", "unweighted"]
Add = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""``add(x, d, start)``: x + d for entries from flat index `start`, d fp32, rounded to x's type."""

_here = threading.local()
_CHUNK = 1 << 19  # elements that share one scratch buffer: 2 MiB of fp32 stay in the cache


def adamw_(
    params: Sequence[torch.Tensor],
    grads: Sequence[torch.Tensor],
    exp_avgs: Sequence[torch.Tensor],
    exp_avg_sqs: Sequence[torch.Tensor],
    steps: Sequence[torch.Tensor],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """torch's fused AdamW kernel, in place: m, v, then θ ← (1 − η·λ)·θ − η·m̂/(√v̂ + ε).

    Args:
        params, grads, exp_avgs, exp_avg_sqs: flat, all of one dtype and device.
        steps: t of each, from 1; fp32 scalars.
        lr, betas, eps, weight_decay: η, (β₁, β₂), ε, λ.
    """
    device = params[0].device
    if device.type != "cpu":
        steps = [step.to(device) for step in steps]
    fused_adamw_(
        list(params), list(grads), list(exp_avgs), list(exp_avg_sqs), [], list(steps),
        lr=lr, beta1=betas[0], beta2=betas[1], weight_decay=weight_decay, eps=eps, amsgrad=False, maximize=False,
    )  # fmt: skip


def adamw_moments_(
    grads: Sequence[torch.Tensor],
    exp_avgs: Sequence[torch.Tensor],
    exp_avg_sqs: Sequence[torch.Tensor],
    steps: Sequence[torch.Tensor],
    *,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """Update Adam's moments alone, in place.

    The fused kernel runs at η = 0 on a zero scratch chunk that stays in the cache, so that it reads and writes two
    arrays less than a step does.

    Args:
        grads: flat, any floating dtype.
        exp_avgs, exp_avg_sqs: m and v; flat, one dtype.
        steps: t of each.
        betas, eps: (β₁, β₂), ε > 0.
    """
    if not grads:
        return
    dtype, device = exp_avgs[0].dtype, exp_avgs[0].device
    chunk = min(_CHUNK, max(g.numel() for g in grads))
    # what stands in it does not matter: the moments do not depend on the parameter
    scratch = (
        _scratch(chunk) if dtype == torch.float32 and device.type == "cpu" else torch.zeros(chunk, dtype=dtype, device=device)
    )
    lists: tuple[list[torch.Tensor], ...] = ([], [], [], [], [])
    same = all(g.dtype == dtype for g in grads)
    for grad, m, v, step in zip(grads, exp_avgs, exp_avg_sqs, steps, strict=True):
        for start, stop in spans(grad.numel(), chunk):
            part = grad[start:stop]
            for target, value in zip(
                lists, (scratch[: stop - start], part.to(dtype), m[start:stop], v[start:stop], step), strict=True
            ):
                target.append(value)
            if not same:  # converted gradients are used and freed chunk by chunk
                adamw_(*lists, lr=0.0, betas=betas, eps=eps, weight_decay=0.0)
                lists = ([], [], [], [], [])
    if lists[0]:
        adamw_(*lists, lr=0.0, betas=betas, eps=eps, weight_decay=0.0)


def _scratch(count: int) -> torch.Tensor:
    """This thread's chunk of fp32, kept from step to step: some MB made anew would cost a step's tenth in page faults."""
    held = getattr(_here, "chunk", None)
    if held is None or held.numel() < count:
        held = _here.chunk = torch.zeros(count)
    return held[:count]


def adamw_rounded_(
    theta: torch.Tensor,
    grad: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
    step: torch.Tensor,
    add: Add,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """An AdamW step on a parameter whose type is too coarse for its updates: computed in fp32, rounded by `add`.

    Args:
        theta, grad: flat; bf16 or fp16.
        exp_avg, exp_avg_sq: flat; fp32 or `theta`'s dtype.
        step: t.
        add: rounds to nearest, or stochastically.
        lr, betas, eps, weight_decay: η, (β₁, β₂), ε, λ.
    """

    for start, stop in spans(theta.numel(), block_size(theta.device)):
        part = slice(start, stop)
        delta = torch.zeros(stop - start, dtype=exp_avg.dtype, device=theta.device)
        adamw_(
            [delta], [grad[part].to(exp_avg.dtype)], [exp_avg[part]], [exp_avg_sq[part]], [step],
            lr=lr, betas=betas, eps=eps, weight_decay=0.0,
        )  # fmt: skip
        delta = delta.float()
        if weight_decay:
            delta.add_(theta[part], alpha=-lr * weight_decay)
        theta[part] = add(theta[part], delta, start)


def ondare_step(delta: torch.Tensor, tau: torch.Tensor | None, alpha: float) -> torch.Tensor:
    """(1 − α)·F(Δθ) + α·F(τ_s), what OnDARE adds to θ ([OMO] Eq. 4).

    Args:
        delta: F(Δθ), sparsified and rescaled; fp32; overwritten.
        tau: F(τ_s) in the same way, None for zero.
        alpha: α.

    Returns:
        `delta`, which holds the sum.
    """
    delta.mul_(1 - alpha)
    return delta if tau is None else delta.add_(tau, alpha=alpha)


def onties_step(
    delta: torch.Tensor, tau: torch.Tensor | None, alpha: float | torch.Tensor, elect: Elect = "weighted"
) -> torch.Tensor:
    """[(1 − α)·F(Δθ)] ⊕sign [α·F(τ_s)], what OnTIES adds to θ ([OMO] Eq. 5–7).

    Args:
        delta, tau: F(Δθ) and F(τ_s); fp32; overwritten. None for zero.
        alpha: α, a number or a tensor of no dimensions.
        elect: ``"weighted"``: the paper: where signs differ the larger of the two weighted entries stays, both where
            equal. ``"unweighted"``: the authors' code: the sign of F(Δθ) + F(τ_s), before the weights, decides
            (+ where that is zero), and the entries that agree with it stay.

    Returns:
        fp32, the deltas' shape.
    """
    return delta.mul_(1 - alpha) if tau is None else _ELECTIONS[elect](delta, tau, alpha)


def _elect_weighted(delta: torch.Tensor, tau: torch.Tensor, alpha: float | torch.Tensor) -> torch.Tensor:
    return pairwise_sign_consensus(delta.mul_(1 - alpha), tau.mul_(alpha))


def _elect_unweighted(delta: torch.Tensor, tau: torch.Tensor, alpha: float | torch.Tensor) -> torch.Tensor:
    positive = delta + tau >= 0
    delta = torch.where((delta > 0) == positive, delta, 0.0).mul_(1 - alpha)
    return delta.add_(torch.where((tau > 0) == positive, tau, 0.0).mul_(alpha))


_ELECTIONS = {"weighted": _elect_weighted, "unweighted": _elect_unweighted}
