"""Metrics are found by their files; a name that is none, or a mix of kinds of rows, is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

import mergetool.evaluate.metrics as package
from mergetool.errors import RecipeError
from mergetool.evaluate.metrics import METRICS, kind_of_rows, metric


def test_every_file_is_a_metric_and_they_are_listed_by_order_and_name() -> None:
    files = {path.stem for path in Path(package.__path__[0]).glob("*.py")} - {"__init__", "base"}
    assert len(METRICS) == len(files)
    assert list(METRICS) == [row.name for row in sorted(METRICS.values(), key=lambda row: (row.order, row.name))]


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="tax: unknown metric 'nil'; did you mean 'nll'"):
        metric("nil", "tax")


def test_metrics_of_one_kind_of_rows_go_together() -> None:
    assert kind_of_rows(["nll", "exact_match"]) == "completions"
    assert kind_of_rows(["reward_margin"]) == "preferences"
    with pytest.raises(RecipeError, match="mixes metrics of preference pairs and of completions"):
        kind_of_rows(["nll", "reward_margin"])
    with pytest.raises(RecipeError, match="names no metric"):
        kind_of_rows([])
