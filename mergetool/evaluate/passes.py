"""The passes over a model that several metrics read: each is made once, when the first metric asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mergetool.data.tokens import Coded
from mergetool.errors import RecipeError
from mergetool.evaluate.generation import greedy, sampled
from mergetool.evaluate.instruments import Instruments
from mergetool.evaluate.judge import Judge
from mergetool.evaluate.logprobs import completion_log_probs
from mergetool.evaluate.metrics.base import Measured
from mergetool.evaluate.reward_model import RewardModel
from mergetool.evaluate.tasks import Prepared

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ReferenceScores:
    """What the SFT model makes of a task's rows.

    Attributes:
        log_probs: of the chosen and of the rejected sides, nats; float64 tensors of shape (rows,).
        answers: its greedy answers.
        model: the model itself, for what cannot be kept: whole distributions.
    """

    log_probs: tuple[torch.Tensor, torch.Tensor] | None = None
    answers: tuple[str, ...] | None = None
    model: Any | None = None


def wants_reference(prepared: Prepared) -> bool:
    """Whether a task compares with what the SFT model scores or writes."""
    return prepared.task.compares_with("log_probs", "answers")


def wants_model(prepared: Prepared) -> bool:
    """Whether a task needs the SFT model in memory beside the one that is measured."""
    return prepared.task.compares_with("model")


def without_reference(prepared: Prepared) -> RecipeError:
    """The error of a task that compares with an SFT model that is not there."""
    return RecipeError(
        f"{prepared.task.name}: metrics that compare with the SFT model need it", "give the SFT model as the reference"
    )


def reference_scores(model: Any, prepared: Prepared, pad_id: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the chosen and of the rejected sides, nats; float64 tensors of shape (rows,)."""
    both = completion_log_probs(model, [side for pair in prepared.pairs for side in pair], pad_id)
    return both[0::2], both[1::2]


def refer(model: Any, prepared: Prepared, tokenizer: Any) -> ReferenceScores:
    """What the metrics of a task need of the SFT model `model`, so that it is asked once and not for each candidate."""
    task = prepared.task
    return ReferenceScores(
        reference_scores(model, prepared, tokenizer.pad_token_id or 0) if task.compares_with("log_probs") else None,
        tuple(text for text, _ in _answers(model, prepared, tokenizer)) if task.compares_with("answers") else None,
        model if wants_model(prepared) else None,
    )


def _answers(model: Any, prepared: Prepared, tokenizer: Any) -> list[tuple[str, bool]]:
    return greedy(model, tokenizer, prepared.prompts, prepared.max_new_tokens, prepared.stop_at_newline)


class Passes(Measured):
    """One model's passes over one task, as a metric sees them.

    Args:
        model: a causal language model.
        prepared: the task.
        tokenizer: of the model.
        reference: of the SFT model, where a metric compares with it.
        instruments: reward models and judges.
    """

    def __init__(
        self, model: Any, prepared: Prepared, tokenizer: Any, reference: ReferenceScores | None, instruments: Instruments
    ) -> None:
        self._model, self._prepared, self._tokenizer = model, prepared, tokenizer
        self._reference, self._instruments = reference or ReferenceScores(), instruments

    @property
    def model(self) -> Any:
        return self._model

    @property
    def rows(self) -> tuple[dict[str, Any], ...]:
        return self._prepared.rows

    @property
    def pairs(self) -> tuple[tuple[Coded, Coded], ...]:
        return self._prepared.pairs

    @property
    def completions(self) -> tuple[Coded, ...]:
        return self._prepared.completions

    @property
    def pad_id(self) -> int:
        return self._tokenizer.pad_token_id or 0

    @cached_property
    def margins(self) -> torch.Tensor:
        chosen, rejected = reference_scores(self.model, self._prepared, self.pad_id)
        before = self._of_sft(self._reference.log_probs)
        return self._prepared.task.beta * ((chosen - before[0]) - (rejected - before[1]))

    @cached_property
    def log_probs(self) -> torch.Tensor:
        return completion_log_probs(self.model, self.completions, self.pad_id)

    @cached_property
    def answers(self) -> list[tuple[str, bool]]:
        return _answers(self.model, self._prepared, self._tokenizer)

    @cached_property
    def references(self) -> list[str]:
        return [self._tokenizer.decode(one.ids[one.start :], skip_special_tokens=True) for one in self.completions]

    @property
    def texts(self) -> list[str]:
        return [text for text, _ in self.answers]

    @cached_property
    def samples(self) -> list[list[Coded]]:
        task = self._prepared.task
        return sampled(self.model, self._tokenizer, self._prepared.prompts, self._prepared.max_new_tokens, task.samples)

    @cached_property
    def sampled_texts(self) -> list[list[str]]:
        def text(one: Coded) -> str:
            return self._tokenizer.decode(one.ids[one.start :], skip_special_tokens=True)

        return [[text(one) for one in some] for some in self.samples]

    @property
    def prompts(self) -> list[Any]:
        return [row["prompt"] for row in self.rows]

    @property
    def sft_model(self) -> Any:
        return self._of_sft(self._reference.model)

    @property
    def sft_answers(self) -> tuple[str, ...]:
        return self._of_sft(self._reference.answers)

    @property
    def reward_model(self) -> RewardModel:
        source = self._prepared.task.reward_model
        assert source is not None  # `prepare` has seen to it
        return self._instruments.reward_model(source)

    @property
    def judge(self) -> Judge:
        settings = self._prepared.task.judge
        assert settings is not None  # `prepare` has seen to it
        return self._instruments.judge(settings)

    def _of_sft(self, part: Any) -> Any:
        """Raises RecipeError where that part of the SFT model's scores is not there."""
        if part is None:
            raise without_reference(self._prepared)
        return part
