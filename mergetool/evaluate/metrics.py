"""The table of metrics. A metric is a row here, not a class: a few numbers per data row, and a statistic of them.

Each metric turns one pass over the model (`needs`) into columns with an entry per row. The value of most is
sum(numerators) / sum(denominators), so a share of rows, a mean over rows and a mean over tokens are one formula; one
bootstrap serves all statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from mergetool.errors import RecipeError, nearest

PASSES = MappingProxyType(
    {
        "pair_margins": "preferences",
        "completion_nll": "completions",
        "divergence": "completions",
        "greedy_hits": "completions",
        "answer_rewards": "prompts",
        "answer_verdicts": "prompts",
        "answer_scripts": "prompts",
    }
)
"""Pass over the model -> the kind of data rows it reads. A prompt is found in any kind of row."""
GENERATING = frozenset({"greedy_hits", "answer_rewards", "answer_verdicts", "answer_scripts"})
"""Passes that read the model's own greedy answers, which are made once for all of them."""


@dataclass(frozen=True)
class Metric:
    """What one number means.

    Attributes:
        name: as a recipe writes it.
        side: "reward" (what alignment should raise) or "tax" (what it should not cost).
        unit: of the value.
        higher_is_better: which way is better.
        needs: the pass that feeds it, a key of PASSES; "harness" for a task of lm-evaluation-harness.
        short: a title for an axis or a column.
        about: one line for the docs.
        statistic: of the columns that the pass gives, a key of `interval.STATISTICS`.
        asks: the recipe key without which it cannot be taken: "reward_model" or "judge".
        perfect: the best score there is, where a score is a share of it (1 for a share, 100 for BLEU); else None.
    """

    name: str
    side: str
    unit: str
    higher_is_better: bool
    needs: str
    short: str
    about: str
    statistic: str = "ratio"
    asks: str | None = None
    perfect: float | None = None

    @property
    def rows(self) -> str:
        """The kind of data rows: "preferences", "completions" or "prompts"."""
        return PASSES[self.needs]


_ROWS = (
    Metric(
        "preference_accuracy",
        "reward",
        "share of pairs",
        True,
        "pair_margins",
        "preference accuracy",
        "share of pairs whose chosen side has the larger implicit reward; a tie counts one half",
    ),
    Metric(
        "reward_margin",
        "reward",
        "nats",
        True,
        "pair_margins",
        "reward margin",
        "mean over pairs of beta * [log(pi/ref)(chosen) - log(pi/ref)(rejected)]",
    ),
    Metric(
        "length_controlled_margin",
        "reward",
        "nats",
        True,
        "pair_margins",
        "length-controlled margin",
        "reward margin of two answers of one length: the least-squares line of the margin over the difference of "
        "lengths in tokens, read at 0",
        statistic="intercept",
    ),
    Metric(
        "reward_model",
        "reward",
        "points of the reward model",
        True,
        "answer_rewards",
        "reward model",
        "mean score that a sequence-classification model gives to the greedy answers",
        asks="reward_model",
    ),
    Metric(
        "win_rate",
        "reward",
        "share of prompts",
        True,
        "answer_verdicts",
        "win rate over SFT",
        "share of prompts whose greedy answer a judge prefers to the SFT model's, in both orders; a tie counts one half",
        asks="judge",
    ),
    Metric(
        "nll",
        "tax",
        "nats/token",
        False,
        "completion_nll",
        "negative log-likelihood",
        "negative log-likelihood of the held-out completions, per completion token",
    ),
    Metric(
        "exact_match",
        "tax",
        "share of rows",
        True,
        "greedy_hits",
        "exact match",
        "share of greedy answers equal to the reference answer after normalisation",
    ),
    Metric(
        "code_switching",
        "tax",
        "share of answers",
        False,
        "answer_scripts",
        "code-switching",
        "share of greedy answers with a letter of a script that neither the prompt nor the reference answer has",
    ),
    Metric(
        "kl_to_sft",
        "tax",
        "nats/token",
        False,
        "divergence",
        "KL to SFT",
        "exact KL(pi || pi_sft) of the next-token distributions over the held-out completions, per completion token",
    ),
)
METRICS = MappingProxyType({row.name: row for row in _ROWS})


def metric(name: str, where: str = "metric") -> Metric:
    """The row called `name`.

    Raises:
        RecipeError: there is no such metric; the message names the nearest one.
    """
    if name not in METRICS:
        raise RecipeError(f"{where}: unknown metric '{name}'", nearest(name, METRICS))
    return METRICS[name]


def kind_of_rows(names: tuple[str, ...] | list[str], where: str = "metrics") -> str:
    """The kind of data rows that serves all of these metrics: "preferences", "completions" or "prompts".

    Raises:
        RecipeError: no metric is named, one is unknown, or some want pairs and others completions.
    """
    kinds = {metric(name, where).rows for name in names}
    if not kinds:
        raise RecipeError(f"{where}: names no metric", "make one entry for each kind of data")
    if {"preferences", "completions"} <= kinds:
        raise RecipeError(
            f"{where}: mixes metrics of preference pairs and of completions", "make one entry for each kind of data"
        )
    return (kinds - {"prompts"} or kinds).pop()
