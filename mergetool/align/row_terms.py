"""What is added to the alignment loss for the rows that should stay, and when: one batch at each micro step.

Its backward pass follows the alignment loss' own, so that the graphs of both are never in memory together; gradients add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mergetool.activations.answers import Batch, logits
from mergetool.align.stay import Stay
from mergetool.errors import RecipeError

if TYPE_CHECKING:
    import torch

Term = Callable[[Any, Batch, Any], "torch.Tensor"]
"""(model, batch, theta_s as a model or None) -> the sum over the batch's scored tokens, an fp32 scalar."""


def kl(model: Any, batch: Batch, reference: Any) -> torch.Tensor:
    """KL(pi_s || pi) over the whole vocabulary, where the answers' tokens are predicted.

    Source: [LwF] Li & Hoiem 2016, arXiv 1606.09282; [AMA] "knowledge distillation".
    """
    import torch

    with torch.no_grad():
        before = logits(reference, batch).log_softmax(-1)
    return torch.nn.functional.kl_div(logits(model, batch).log_softmax(-1), before, reduction="sum", log_target=True)


@dataclass
class RowTerm:
    """The term of one run.

    Attributes:
        name: the method's, for messages.
        term: `nll` or `kl`.
        weight: lambda.
        stay: the rows.
        size: rows of a batch on each rank.
        seed: of their order.
        reference: theta_s, as a model that is not trained; None where the term does not read it.
    """

    name: str
    term: Term
    weight: float
    stay: Stay
    size: int
    seed: int
    reference: Any = None

    def __post_init__(self) -> None:
        self._step, self._micro = -1, 0
        self._seen: list[torch.Tensor] = []

    def backward(self, trainer: Any, model: Any) -> torch.Tensor | float:
        """Adds lambda times the mean over scored tokens to the gradients; returns what it adds to the loss of this micro step.

        Args:
            trainer: transformers' trainer, after its own backward pass of this micro step.
            model: as its training_step gets it, perhaps wrapped.

        Raises:
            RecipeError: the term is no number.
        """
        if not self.weight:
            return 0.0
        step, accelerator = trainer.state.global_step, trainer.accelerator
        self._micro = self._micro + 1 if step == self._step else 0
        self._step = step
        number = step * trainer.args.gradient_accumulation_steps + self._micro
        ranks = accelerator.num_processes
        batch = self.stay.batch(number, self.size, self.seed, accelerator.process_index, ranks).to(accelerator.device)
        with trainer.compute_loss_context_manager():
            # ranks are averaged, so that the sum of all ranks is divided by the tokens of all ranks
            mean = self.term(model, batch, self.reference) * ranks / batch.tokens
        value = float(mean.detach())
        if not math.isfinite(value):
            raise RecipeError(
                f"training: the term of {self.name} is {value} at step {step + 1}",
                "lower training.learning_rate or merging.lambda, or train in float32; the last checkpoint is kept",
            )
        loss = self.weight * mean / trainer.current_gradient_accumulation_steps
        accelerator.backward(loss)
        self._seen.append(mean.detach())
        return loss.detach()

    def logged(self, accelerator: Any) -> dict[str, float]:
        """The term's mean since it was last logged, without lambda; all ranks must call it."""
        if not self._seen:
            return {}
        import torch

        mean, self._seen = torch.stack(self._seen).mean(), []
        return {"rows_loss": float(accelerator.reduce(mean, "mean"))}
