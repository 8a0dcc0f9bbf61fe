"""What a metric is: a row that says what its number means, and a pass that computes it for each data row.

A metric is one file of this directory with one `METRIC`. What is costly (log-probabilities, greedy answers) it asks of
`Measured`, which makes it once for all the metrics of a task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch

    from mergetool.data.tokens import Coded
    from mergetool.evaluate.interval import Columns
    from mergetool.evaluate.judge import Judge
    from mergetool.evaluate.reward_model import RewardModel


class Measured(Protocol):
    """One model on one task, as a metric sees it. Everything is made when first asked for, and once."""

    @property
    def model(self) -> Any:
        """The causal language model."""
        ...

    @property
    def rows(self) -> Sequence[dict[str, Any]]:
        """The data rows, in order."""
        ...

    @property
    def pairs(self) -> Sequence[tuple[Coded, Coded]]:
        """(chosen, rejected) of each preference row."""
        ...

    @property
    def completions(self) -> Sequence[Coded]:
        """The completion of each completion row."""
        ...

    @property
    def pad_id(self) -> int:
        """The token that fills short rows."""
        ...

    @property
    def margins(self) -> torch.Tensor:
        """beta * [log(pi/ref)(chosen) - log(pi/ref)(rejected)] of each pair, nats; float64, shape (rows,)."""
        ...

    @property
    def log_probs(self) -> torch.Tensor:
        """Log-probability of each completion, nats; float64, shape (rows,)."""
        ...

    @property
    def answers(self) -> Sequence[tuple[str, bool]]:
        """The model's greedy answer to each prompt, and whether it came to an end before the limit."""
        ...

    @property
    def references(self) -> Sequence[str]:
        """The completion of each completion row, read back from its tokens as answers are: a call of a tool as text."""
        ...

    @property
    def texts(self) -> Sequence[str]:
        """The answers alone."""
        ...

    @property
    def samples(self) -> Sequence[Sequence[Coded]]:
        """Samples of the model for each prompt, at temperature 1, seeded; as many as the task's metrics read."""
        ...

    @property
    def sampled_texts(self) -> Sequence[Sequence[str]]:
        """The same as texts."""
        ...

    @property
    def prompts(self) -> Sequence[str | list]:
        """What was asked: texts, or lists of messages."""
        ...

    @property
    def sft_model(self) -> Any:
        """The SFT model, in memory."""
        ...

    @property
    def sft_answers(self) -> Sequence[str]:
        """The SFT model's greedy answers."""
        ...

    @property
    def reward_model(self) -> RewardModel:
        """The reward model that the task names."""
        ...

    @property
    def judge(self) -> Judge:
        """The judge that the task names."""
        ...


@dataclass(frozen=True)
class RowValues:
    """What a metric computes.

    Attributes:
        columns: what the metric's statistic is taken of: one sequence per number, one entry per row.
        remarks: what a reader of the value should know beside it.
    """

    columns: Columns
    remarks: Mapping[str, Any] = field(default_factory=dict)


def mean_of(values: Iterable[float], **remarks: Any) -> RowValues:
    """Columns whose ratio of sums is the mean over rows."""
    values = list(map(float, values))
    return RowValues((values, [1.0] * len(values)), remarks)


def per_token(totals: torch.Tensor, completions: Sequence[Coded]) -> RowValues:
    """Columns whose ratio of sums is the mean over completion tokens.

    Args:
        totals: summed over the tokens of each completion; shape (rows,).
    """
    return RowValues((totals.tolist(), [float(one.length) for one in completions]))


def always(kind: str, rows: Sequence[dict[str, Any]]) -> bool:
    """`Metric.by_default` of a metric that any data serve."""
    return True


def never(kind: str, rows: Sequence[dict[str, Any]]) -> bool:
    """`Metric.by_default` of a metric that is taken only where it is named."""
    return False


@dataclass(frozen=True)
class Metric:
    """What one number means, and how it is computed.

    Attributes:
        name: as a recipe writes it.
        side: "reward" (what alignment should raise) or "tax" (what it should not cost).
        unit: of the value.
        higher_is_better: which way is better.
        rows: the data rows that it reads: "preferences", "completions" or "prompts" (a prompt is in any kind of row); of
            a benchmark of lm-evaluation-harness "harness", which has rows of its own.
        short: a title for an axis or a column.
        about: one line for the docs.
        statistic: of the columns, a key of `interval.STATISTICS`; the value, and what is bootstrapped for its interval.
        asks: the recipe key without which it cannot be taken: "reward_model" or "judge".
        perfect: the best score there is, where a score is a share of it (1 for a share, 100 for BLEU); else None.
        measure: the pass: one model on one task to numbers for each row. None for a benchmark of the harness.
        compares_with: what of the SFT model it reads, a field of `passes.ReferenceScores`; None: nothing.
        reads_answers: whether it reads the model's own greedy answers.
        samples: how many samples of the model for each prompt it reads; 0: none.
        answer_end: of (rows, completions): the limit of an answer in tokens (None: the default), and whether a line break
            ends it. None: the metric has no wish.
        check_row: raises DataError where a row says something that the metric cannot use.
        by_default: of (kind of rows, rows): whether `mergetool evaluate` takes it where nobody names a metric.
        order: place in listings; smaller first, then by name.
    """

    name: str
    side: str
    unit: str
    higher_is_better: bool
    rows: str
    short: str
    about: str
    statistic: str = "ratio"
    asks: Literal["reward_model", "judge"] | None = None
    perfect: float | None = None
    measure: Callable[[Measured], RowValues] | None = None
    compares_with: Literal["log_probs", "answers", "model"] | None = None
    reads_answers: bool = False
    samples: int = 0
    answer_end: Callable[[Sequence[dict[str, Any]], Sequence[Coded]], tuple[int | None, bool]] | None = None
    check_row: Callable[[dict[str, Any]], Any] | None = None
    by_default: Callable[[str, Sequence[dict[str, Any]]], bool] = always
    order: int = 100

    @property
    def needs_second_model(self) -> bool:
        """Whether the SFT model must be in memory beside the one that is measured."""
        return self.compares_with == "model"
