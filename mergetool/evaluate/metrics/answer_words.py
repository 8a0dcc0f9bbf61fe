"""How long the model's answers are."""

from __future__ import annotations

from mergetool.evaluate.metrics.base import Measured, Metric, RowValues, mean_of, never


def words(measured: Measured) -> RowValues:
    """Words of each greedy answer: what stands between spaces."""
    return mean_of(len(text.split()) for text in measured.texts)


METRIC = Metric(
    name="answer_words",
    side="tax",
    unit="words",
    higher_is_better=False,
    rows="prompts",
    short="answer length",
    about="words of a greedy answer, cut at max_new_tokens; alignment makes answers longer",
    measure=words,
    reads_answers=True,
    by_default=never,
    order=13,
)
