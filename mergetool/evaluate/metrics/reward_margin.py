"""How far apart the model's implicit rewards of the two sides of a pair are."""

from __future__ import annotations

from mergetool.evaluate.metrics.base import Measured, Metric, RowValues, mean_of


def margin(measured: Measured) -> RowValues:
    """Each pair's margin, nats."""
    return mean_of(measured.margins.tolist())


METRIC = Metric(
    name="reward_margin",
    side="reward",
    unit="nats",
    higher_is_better=True,
    rows="preferences",
    short="reward margin",
    about="mean over pairs of beta * [log(pi/ref)(chosen) - log(pi/ref)(rejected)]",
    measure=margin,
    compares_with="log_probs",
    order=2,
)
