"""The passes over a model that feed the metrics: each is made once for all metrics of a task that read it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mergetool.errors import RecipeError
from mergetool.evaluate.divergence import completion_divergence
from mergetool.evaluate.greedy import greedy, is_hit
from mergetool.evaluate.instruments import Instruments
from mergetool.evaluate.logprobs import completion_log_probs
from mergetool.evaluate.metrics import Metric
from mergetool.evaluate.scripts import switches
from mergetool.evaluate.tasks import Prepared

if TYPE_CHECKING:
    import torch

Columns = tuple[list[float], ...]


@dataclass(frozen=True)
class Reference:
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
    return prepared.task.needs("pair_margins", "answer_verdicts")


def wants_model(prepared: Prepared) -> bool:
    """Whether a task needs the SFT model in memory beside the one that is measured."""
    return prepared.task.needs("divergence")


def without_reference(prepared: Prepared) -> RecipeError:
    """The error of a task that compares with an SFT model that is not there."""
    return RecipeError(
        f"{prepared.task.name}: metrics that compare with the SFT model need it", "give the SFT model as the reference"
    )


def reference_scores(model: Any, prepared: Prepared, pad_id: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the chosen and of the rejected sides, nats; float64 tensors of shape (rows,)."""
    both = completion_log_probs(model, [side for pair in prepared.pairs for side in pair], pad_id)
    return both[0::2], both[1::2]


def refer(model: Any, prepared: Prepared, tokenizer: Any) -> Reference:
    """What the metrics of a task need of the SFT model `model`, so that it is asked once and not for each candidate."""
    task = prepared.task
    return Reference(
        reference_scores(model, prepared, tokenizer.pad_token_id or 0) if task.needs("pair_margins") else None,
        tuple(text for text, _ in _answers(model, prepared, tokenizer)) if task.needs("answer_verdicts") else None,
        model if wants_model(prepared) else None,
    )


def _answers(model: Any, prepared: Prepared, tokenizer: Any) -> list[tuple[str, bool]]:
    return greedy(model, tokenizer, prepared.prompts, prepared.max_new_tokens, prepared.stop_at_newline)


def _mean(values: list[float]) -> Columns:
    """Columns whose ratio of sums is the mean."""
    return values, [1.0] * len(values)


class Passes:
    """One model's passes over one task; what several metrics read is made when the first of them asks.

    Args:
        model: a causal language model.
        prepared: the task.
        tokenizer: of the model.
        reference: of the SFT model, where a metric compares with it.
        instruments: reward models and judges.
    """

    def __init__(
        self, model: Any, prepared: Prepared, tokenizer: Any, reference: Reference | None, instruments: Instruments
    ) -> None:
        self._model, self._prepared, self._tokenizer = model, prepared, tokenizer
        self._reference, self._instruments = reference or Reference(), instruments
        self.remarks: dict[str, dict[str, Any]] = {}
        """What a reader of a metric's value should know beside it, by metric."""

    def columns(self, metric: Metric) -> Columns:
        """The columns that the metric's statistic is taken of, an entry per row.

        Raises:
            RecipeError: it compares with a reference that is not there.
        """
        return getattr(self, f"_{metric.needs}")[metric.name]

    @cached_property
    def _pair_margins(self) -> dict[str, Columns]:
        chosen, rejected = reference_scores(self._model, self._prepared, self._pad_id)
        before = self._asked("log_probs")
        margin = self._prepared.task.beta * ((chosen - before[0]) - (rejected - before[1]))
        ones = [1.0] * len(margin)
        share = ((margin > 0).double() + 0.5 * (margin == 0).double()).tolist()
        longer = [float(chosen.length - rejected.length) for chosen, rejected in self._prepared.pairs]
        return {
            "preference_accuracy": (share, ones),
            "reward_margin": (margin.tolist(), ones),
            "length_controlled_margin": (margin.tolist(), longer),
        }

    @cached_property
    def _completion_nll(self) -> dict[str, Columns]:
        total = completion_log_probs(self._model, self._prepared.completions, self._pad_id)
        return {"nll": ((-total).tolist(), self._tokens)}

    @cached_property
    def _divergence(self) -> dict[str, Columns]:
        before = self._asked("model")
        total = completion_divergence(self._model, before, self._prepared.completions, self._pad_id)
        return {"kl_to_sft": (total.tolist(), self._tokens)}

    @cached_property
    def _greedy_hits(self) -> dict[str, Columns]:
        rows = self._prepared.rows
        hits = [float(is_hit(text, finished, row)) for (text, finished), row in zip(self._answers, rows, strict=True)]
        return {"exact_match": _mean(hits)}

    @cached_property
    def _answer_scripts(self) -> dict[str, Columns]:
        rows = self._prepared.rows
        return {"code_switching": _mean([float(switches(text, row)) for text, row in zip(self._texts, rows, strict=True)])}

    @cached_property
    def _answer_rewards(self) -> dict[str, Columns]:
        source = self._prepared.task.reward_model
        assert source is not None  # `prepare` has seen to it
        return {"reward_model": _mean(self._instruments.reward_model(source).scores(self._prompts, self._texts))}

    @cached_property
    def _answer_verdicts(self) -> dict[str, Columns]:
        before = self._asked("answers")
        settings = self._prepared.task.judge
        assert settings is not None  # `prepare` has seen to it
        found = self._instruments.judge(settings).compare(self._prompts, self._texts, before)
        self.remarks["win_rate"] = {"without_verdict": found.without_verdict}
        return {"win_rate": _mean(found.scores)}

    @cached_property
    def _answers(self) -> list[tuple[str, bool]]:
        return _answers(self._model, self._prepared, self._tokenizer)

    @property
    def _texts(self) -> list[str]:
        return [text for text, _ in self._answers]

    @property
    def _prompts(self) -> list[Any]:
        return [row["prompt"] for row in self._prepared.rows]

    @property
    def _tokens(self) -> list[float]:
        return [float(one.length) for one in self._prepared.completions]

    @property
    def _pad_id(self) -> int:
        return self._tokenizer.pad_token_id or 0

    def _asked(self, part: str) -> Any:
        found = getattr(self._reference, part)
        if found is None:
            raise without_reference(self._prepared)
        return found
