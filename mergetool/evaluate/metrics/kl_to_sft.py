"""How far the model's next-token distributions are from the SFT model's."""

from __future__ import annotations

from mergetool.evaluate.divergence import completion_divergence
from mergetool.evaluate.metrics.base import Measured, Metric, RowValues, per_token


def divergence(measured: Measured) -> RowValues:
    """KL(pi || pi_sft), nats, over completion tokens."""
    total = completion_divergence(measured.model, measured.sft_model, measured.completions, measured.pad_id)
    return per_token(total, measured.completions)


METRIC = Metric(
    name="kl_to_sft",
    side="tax",
    unit="nats/token",
    higher_is_better=False,
    rows="completions",
    short="KL to SFT",
    about="exact KL(pi || pi_sft) of the next-token distributions over the held-out completions, per completion token",
    measure=divergence,
    compares_with="model",
    order=9,
)
