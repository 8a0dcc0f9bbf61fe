"""Every candidate is held against SFT, RLHF and the interpolation front at its own reward; what has no rows is left out."""

from __future__ import annotations

import pytest

from mergetool.study.analysis.differences import front_of, pareto
from tests.study.lines import AWAY, MEANS, SCORES, outcome, outcome_by_rows


def test_each_candidate_is_held_against_both_models_and_the_yardstick(small_study) -> None:
    means = {**MEANS, "ties w=0.9": ((0.65, 1.3), (0.65, 1.3))}
    summary = outcome_by_rows(small_study, means, AWAY)
    of_ties = summary.differences["test"]["ties w=0.9"]
    assert set(of_ties) == {"sft", "rlhf", "linear"}
    assert of_ties["sft"]["skills.nll"].mean == pytest.approx(0.3)
    assert of_ties["rlhf"]["pairs.preference_accuracy"].mean == pytest.approx(-0.05)
    # the line from (0.6, 1.2) to (0.69, 1.5) has 1.2 + 0.3 * 5/9 nats at a reward of 0.65
    assert of_ties["linear"]["skills.nll"].mean == pytest.approx(1.3 - (1.2 + 0.3 * 5 / 9))
    assert of_ties["linear"]["skills.nll"].is_clear
    assert "pairs.preference_accuracy" not in of_ties["linear"], "the front is read at the same reward"
    assert "linear" not in summary.differences["test"]["linear w=0.5"]


def test_beyond_the_yardstick_nothing_is_extrapolated(small_study) -> None:
    means = {**MEANS, "ties w=0.9": ((0.75, 1.3), (0.75, 1.3))}
    assert set(outcome_by_rows(small_study, means, AWAY).differences["test"]["ties w=0.9"]) == {"sft", "rlhf"}


def test_old_results_have_no_differences_and_are_named(small_study) -> None:
    summary = outcome(small_study, **SCORES)
    assert summary.differences == {"validation": {}, "test": {}}
    assert "sft" in summary.without_rows


def test_the_front_leaves_out_what_is_beaten(small_study) -> None:
    summary = outcome_by_rows(small_study, {**MEANS, "linear w=0.5": ((0.45, 1.2), (0.45, 1.2))}, AWAY)
    of_linear = [one for one in summary.groups if one.family == "linear"]
    ends = [one for one in summary.groups if one.name in ("sft", "rlhf")]
    assert front_of(of_linear, ends, summary.reward, summary.tax, "test") == ["sft", "linear w=0.9", "rlhf"]
    assert pareto([("a", 0, 0), ("b", 1, 1)]) == ["b"]
