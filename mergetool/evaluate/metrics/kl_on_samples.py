"""How far the model is from the SFT model on what it writes itself."""

from __future__ import annotations

from mergetool.evaluate.divergence import completion_divergence
from mergetool.evaluate.metrics.base import Measured, Metric, RowValues, never, per_token


def divergence(measured: Measured) -> RowValues:
    """KL(pi || pi_sft), nats, over the tokens of one sample for each prompt."""
    samples = [some[0] for some in measured.samples]
    total = completion_divergence(measured.model, measured.sft_model, samples, measured.pad_id)
    return per_token(total, samples)


METRIC = Metric(
    name="kl_on_samples",
    side="tax",
    unit="nats/token",
    higher_is_better=False,
    rows="prompts",
    short="KL to SFT on own samples",
    about="exact KL(pi || pi_sft) of the next-token distributions over the model's own samples (temperature 1), per token",
    measure=divergence,
    compares_with="model",
    samples=1,
    by_default=never,
    order=10,
)
