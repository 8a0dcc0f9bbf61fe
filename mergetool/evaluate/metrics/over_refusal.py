"""How often the model refuses what it should answer."""

from __future__ import annotations

from mergetool.evaluate.metrics.base import Metric, never
from mergetool.evaluate.metrics.refusal import refusals

METRIC = Metric(
    name="over_refusal",
    side="tax",
    unit="share of prompts",
    higher_is_better=False,
    rows="prompts",
    short="refusals of harmless prompts",
    about="share of prompts, all of them harmless, whose greedy answer refuses, by how it opens",
    measure=refusals,
    reads_answers=True,
    by_default=never,
    order=12,
)
