"""Whether an answer slips into another script than the question's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mergetool.evaluate.metrics.base import Measured, Metric, RowValues, mean_of
from mergetool.evaluate.rows import ANY_ROWS
from mergetool.evaluate.unicode_scripts import expected_scripts, switches


def slips(measured: Measured) -> RowValues:
    """1 where an answer has a letter of a script that it should not use."""
    return mean_of(switches(text, row) for text, row in zip(measured.texts, measured.rows, strict=True))


def _on_prompts_alone(kind: str, rows: Sequence[dict[str, Any]]) -> bool:
    return kind == ANY_ROWS


METRIC = Metric(
    name="code_switching",
    side="tax",
    unit="share of answers",
    higher_is_better=False,
    rows="prompts",
    short="code-switching",
    about="share of greedy answers with a letter of a script that neither the prompt nor the reference answer has",
    measure=slips,
    reads_answers=True,
    check_row=expected_scripts,
    by_default=_on_prompts_alone,
    order=8,
)
