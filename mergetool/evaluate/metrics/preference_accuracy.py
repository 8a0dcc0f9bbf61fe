"""The share of pairs that the model orders as people did."""

from __future__ import annotations

from mergetool.evaluate.metrics.base import Measured, Metric, RowValues, mean_of


def share(measured: Measured) -> RowValues:
    """1 for a positive margin, one half for a tie."""
    margins = measured.margins
    return mean_of(((margins > 0).double() + 0.5 * (margins == 0).double()).tolist())


METRIC = Metric(
    name="preference_accuracy",
    side="reward",
    unit="share of pairs",
    higher_is_better=True,
    rows="preferences",
    short="preference accuracy",
    about="share of pairs whose chosen side has the larger implicit reward; a tie counts one half",
    measure=share,
    compares_with="log_probs",
    order=1,
)
