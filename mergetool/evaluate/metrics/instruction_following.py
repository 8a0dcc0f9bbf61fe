"""Whether answers do what can be checked by a program: IFEval."""

from __future__ import annotations

from mergetool.evaluate.instructions import check_row, follows
from mergetool.evaluate.metrics.base import Measured, Metric, RowValues, mean_of, never


def followed(measured: Measured) -> RowValues:
    """1 for each greedy answer that follows all instructions of its row."""
    return mean_of(follows(row, text) for row, text in zip(measured.rows, measured.texts, strict=True))


METRIC = Metric(
    name="instruction_following",
    side="reward",
    unit="share of prompts",
    higher_is_better=True,
    rows="prompts",
    short="instruction following",
    about="share of prompts whose greedy answer follows every instruction that the row names (IFEval, prompt-level strict)",
    measure=followed,
    reads_answers=True,
    check_row=check_row,
    by_default=never,
    order=16,
)
