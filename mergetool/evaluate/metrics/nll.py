"""How surprising held-out completions are to the model."""

from __future__ import annotations

from mergetool.evaluate.metrics.base import Measured, Metric, RowValues, per_token


def surprise(measured: Measured) -> RowValues:
    """-log pi(completion | prompt), nats, over completion tokens."""
    return per_token(-measured.log_probs, measured.completions)


METRIC = Metric(
    name="nll",
    side="tax",
    unit="nats/token",
    higher_is_better=False,
    rows="completions",
    short="negative log-likelihood",
    about="negative log-likelihood of the held-out completions, per completion token",
    measure=surprise,
    order=6,
)
