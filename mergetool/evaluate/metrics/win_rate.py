"""How often a judge prefers the model's answer to the SFT model's."""

from __future__ import annotations

from mergetool.evaluate.metrics.base import Measured, Metric, RowValues, mean_of


def wins(measured: Measured) -> RowValues:
    """1 for a win in both orders, 0 for a loss in both, else one half."""
    theirs = measured.sft_answers
    found = measured.judge.compare(measured.prompts, measured.texts, theirs)
    return mean_of(found.scores, without_verdict=found.without_verdict)


METRIC = Metric(
    name="win_rate",
    side="reward",
    unit="share of prompts",
    higher_is_better=True,
    rows="prompts",
    short="win rate over SFT",
    about="share of prompts whose greedy answer a judge prefers to the SFT model's, in both orders; a tie counts one half",
    asks="judge",
    measure=wins,
    compares_with="answers",
    reads_answers=True,
    order=5,
)
