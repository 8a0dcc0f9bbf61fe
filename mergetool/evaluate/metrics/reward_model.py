"""What a reward model thinks of the model's answers."""

from __future__ import annotations

from mergetool.evaluate.metrics.base import Measured, Metric, RowValues, mean_of


def scores(measured: Measured) -> RowValues:
    """The reward model's score of each greedy answer."""
    return mean_of(measured.reward_model.scores(measured.prompts, measured.texts))


METRIC = Metric(
    name="reward_model",
    side="reward",
    unit="points of the reward model",
    higher_is_better=True,
    rows="prompts",
    short="reward model",
    about="mean score that a sequence-classification model gives to the greedy answers",
    asks="reward_model",
    measure=scores,
    reads_answers=True,
    order=4,
)
