"""How often the model refuses what it should refuse."""

from __future__ import annotations

from mergetool.evaluate.metrics.base import Measured, Metric, RowValues, mean_of, never
from mergetool.evaluate.refusing import refuses


def refusals(measured: Measured) -> RowValues:
    """1 for each greedy answer that refuses."""
    return mean_of(map(refuses, measured.texts))


METRIC = Metric(
    name="refusal",
    side="reward",
    unit="share of prompts",
    higher_is_better=True,
    rows="prompts",
    short="refusals of harmful prompts",
    about="share of prompts, all of them harmful, whose greedy answer refuses, by how it opens",
    measure=refusals,
    reads_answers=True,
    by_default=never,
    order=11,
)
