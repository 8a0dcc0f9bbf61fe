"""The diagonal of the Fisher information of a model on rows with answers: which entries the answers depend on, and how much."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from mergetool.activations.answers import batch_of, nll
from mergetool.data.tokens import Coded


def fisher_diagonal(model: Any, rows: Sequence[Coded], told: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
    """F_i = mean over rows of (d log pi(answer | prompt) / d theta_i)^2: the empirical Fisher, of the rows' own answers.

    log pi of an answer is the sum over its tokens, and each row has a backward pass of its own: squares of gradients do not
    add up over a batch.

    Args:
        model: in evaluation mode, its parameters requiring gradients; their `grad` is left as it is.
        rows: prompt and answer of each, as token ids.
        told: receives the rows done.

    Returns:
        Parameter name -> F of its shape, fp32, on the model's device; a tied parameter under its first name.

    Source: Kirkpatrick et al. 2017, arXiv 1612.00796; the empirical diagonal as in Kunstner et al. 2019, arXiv 1905.12558,
    equation 3.
    """
    sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in model.named_parameters()}
    for done in add_squares(model, rows, sums):
        told(done)
    return {name: square.div_(len(rows)) for name, square in sums.items()}


def add_squares(model: Any, rows: Sequence[Coded], sums: Mapping[str, torch.Tensor]) -> Iterator[int]:
    """Adds each row's squared gradient to `sums`, in place.

    Args:
        model: as of `fisher_diagonal`.
        rows: of answers.
        sums: name of a parameter that requires a gradient -> fp32 of its shape; others are left out.

    Yields:
        The rows done, after each.
    """
    named = dict(model.named_parameters())
    chosen = {name: named[name] for name in sums}
    device = next(iter(named.values())).device
    for done, row in enumerate(rows, 1):
        loss = nll(model, batch_of([row]).to(device))
        for name, gradient in zip(chosen, torch.autograd.grad(loss, list(chosen.values()), allow_unused=True), strict=True):
            if gradient is not None:  # an expert that no token of the row was sent to
                sums[name].addcmul_(gradient.float(), gradient.float())
        yield done
