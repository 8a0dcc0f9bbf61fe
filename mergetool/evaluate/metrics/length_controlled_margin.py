"""The reward margin that is left when both answers have the same length."""

from __future__ import annotations

from mergetool.evaluate.metrics.base import Measured, Metric, RowValues


def margin_and_length(measured: Measured) -> RowValues:
    """Each pair's margin, nats, and by how many tokens its chosen side is the longer one."""
    longer = [float(chosen.length - rejected.length) for chosen, rejected in measured.pairs]
    return RowValues((measured.margins.tolist(), longer))


METRIC = Metric(
    name="length_controlled_margin",
    side="reward",
    unit="nats",
    higher_is_better=True,
    rows="preferences",
    short="length-controlled margin",
    about="reward margin of two answers of one length: the least-squares line of the margin over the difference of "
    "lengths in tokens, read at 0",
    statistic="intercept",
    measure=margin_and_length,
    compares_with="log_probs",
    order=3,
)
