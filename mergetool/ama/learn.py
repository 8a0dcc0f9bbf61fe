"""Learning the ratios: the likelihood of answers of high reward, under the averaged model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mergetool.ama.averaged import AveragedModel
from mergetool.ama.ratios import penalty_weights, ratios
from mergetool.ama.recipe import AmaRecipe, Training
from mergetool.errors import DataError

if TYPE_CHECKING:
    from mergetool.data.tokens import Coded

Progress = Callable[[int, int, str], None]
"""Receives (steps done, steps in all, what is being done)."""


@dataclass(frozen=True)
class Learned:
    """The ratios for one mean.

    Attributes:
        alpha: the mean share of SFT that was asked for.
        shares: the share of SFT in each block.
        uniform_nll, nll: nats/token of the measured rows, with `alpha` everywhere and with `shares`.
        measured: "eval" or "train", the rows of those two.
        losses: of each step: nats/token of its batch, before the step; without the penalty.
    """

    alpha: float
    shares: tuple[float, ...]
    uniform_nll: float
    nll: float
    measured: str
    losses: tuple[float, ...] = field(repr=False, default=())


def learn(
    recipe: AmaRecipe,
    alpha: float,
    averaged: AveragedModel,
    train: Sequence[Coded],
    measured: Sequence[Coded],
    pad_id: int,
    progress: Progress | None = None,
) -> Learned:
    """Learns one ratio a block, starting from `alpha` everywhere.

    Args:
        recipe: blocks, penalty and training.
        alpha: the mean share of SFT.
        averaged: the live model; it holds the learned average afterwards.
        train: answers of high reward.
        measured: what uniform and learned averaging are compared on; `train` itself where nothing else is there.
        pad_id: fills short rows.

    Raises:
        DataError: the likelihood is not finite.
    """
    import torch

    settings = recipe.training
    w = torch.zeros(averaged.parts.count, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor(penalty_weights(averaged.parts.count, recipe.penalty_shape), dtype=torch.float64)
    optimizer = torch.optim.Adam([w], lr=settings.learning_rate)
    averaged.put([alpha] * averaged.parts.count, alpha)
    before = nll(averaged.model, measured, pad_id, settings.bf16)
    losses = []
    batches = _batches(len(train), settings)
    for step in range(settings.steps):
        shares = ratios(w, alpha, recipe.epsilon)
        if step:
            averaged.put(shares.tolist(), alpha)
        batch = [train[at] for at in next(batches)]
        with averaged.gradients() as found:
            losses.append(_backward(averaged.model, batch, pad_id, settings))
        if not math.isfinite(losses[-1]):
            raise DataError(
                f"step {step + 1}: the likelihood is {losses[-1]}", "look for NaN in the models, or set bf16: false"
            )
        optimizer.zero_grad()
        # at the kink |alpha_k − alpha| = 0 autograd takes the slope 0, and so the first step is the likelihood's alone
        penalty = recipe.penalty * (weights * (shares - alpha).abs()).sum()
        (penalty + (shares * torch.tensor(found, dtype=torch.float64)).sum()).backward()
        optimizer.step()
        if progress:
            progress(step + 1, settings.steps, f"alpha {alpha:g}: {losses[-1]:.4f} nats/token")
    shares = tuple(ratios(w.detach(), alpha, recipe.epsilon).tolist())
    averaged.put(shares, alpha)
    after = nll(averaged.model, measured, pad_id, settings.bf16)
    return Learned(alpha, shares, before, after, "train" if measured is train else "eval", tuple(losses))


def _batches(rows: int, settings: Training) -> Iterator[list[int]]:
    """Row numbers of each step: every row once before any comes again, in a new seeded order each time."""
    import random

    rng = random.Random(settings.seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < min(settings.batch_size, rows):
            waiting += rng.sample(range(rows), rows)
        yield waiting[: settings.batch_size]
        waiting = waiting[settings.batch_size :]


def _backward(model: Any, batch: Sequence[Coded], pad_id: int, settings: Training) -> float:
    """One backward pass in pieces that fit into memory; returns the batch's nats/token."""
    from mergetool.evaluate.logprobs import batches, token_log_probs

    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        for module in model.modules():
            # transformers checkpoints in training alone; what is inside of a layer stays as it is: nothing is dropped out
            if hasattr(module, "gradient_checkpointing"):
                module.training = True
    tokens = sum(one.length for one in batch)
    total = 0.0
    for some in batches(batch, model.get_output_embeddings().weight.shape[0]):
        with _autocast(model, settings.bf16):
            found, _ = token_log_probs(model, [batch[at] for at in some], pad_id)
        loss = -found.sum() / tokens
        loss.backward()
        total += float(loss.detach())
    return total


def nll(model: Any, rows: Sequence[Coded], pad_id: int, bf16: bool = False) -> float:
    """Nats/token of the completions."""
    from mergetool.evaluate.logprobs import completion_log_probs

    with _autocast(model, bf16):
        found = completion_log_probs(model, rows, pad_id)
    return -float(found.sum()) / sum(one.length for one in rows)


def _autocast(model: Any, bf16: bool) -> Any:
    import torch

    return torch.autocast(next(model.parameters()).device.type, torch.bfloat16) if bf16 else nullcontext()
