"""Of what cannot be told from the best the nearest to SFT is chosen; means alone where rows or distances are not there."""

from __future__ import annotations

import pytest

from tests.study import tiny
from tests.study.lines import AWAY, MEANS, SCORES, outcome, outcome_by_rows


def test_of_what_cannot_be_told_from_the_best_the_nearest_to_sft_is_chosen(small_study) -> None:
    choice = outcome_by_rows(small_study, MEANS, AWAY).choice
    assert choice.rule == "one_standard_error"
    assert (choice.best, choice.group) == ("ties w=0.9", "linear w=0.9")
    assert choice.why.startswith("nearest to sft in weights of the 2 within one standard error of the best skills.nll")
    assert choice.tied == ("ties w=0.9",)
    assert choice.runner_up == "ties w=0.9"
    assert choice.away is not None
    assert choice.away.mean == pytest.approx(0.001, abs=1e-6), "in the metric's own sign: more nats"
    assert choice.rows_needed is not None
    assert choice.rows_needed > 200


def test_the_farther_one_is_chosen_where_it_is_better_beyond_the_noise(small_study) -> None:
    means = {**MEANS, "linear w=0.9": ((0.69, 1.6), (0.69, 1.5))}
    choice = outcome_by_rows(small_study, means, AWAY).choice
    assert (choice.best, choice.group, choice.tied) == ("ties w=0.9", "ties w=0.9", ())
    assert choice.why.startswith("best skills.nll on the validation rows among the 3 candidates")


def test_the_rule_best_takes_the_best_mean(tmp_path, small_study) -> None:
    candidates = [entry.model_dump(exclude_unset=True) for entry in small_study.candidates]
    study = tiny.study(tmp_path, candidates=candidates, select={"rule": "best"})
    choice = outcome_by_rows(study, MEANS, AWAY).choice
    assert (choice.group, choice.rule) == ("ties w=0.9", "best")
    assert choice.tied == ("linear w=0.9",), "noise is told whatever the rule"


def test_results_without_rows_are_chosen_by_their_means(small_study) -> None:
    choice = outcome(small_study, **SCORES).choice
    assert (choice.rule, choice.away, choice.tied) == ("best", None, ())


def test_with_goal_all_every_metric_counts_alike_and_what_is_idle_is_near(tmp_path, small_study) -> None:
    """SFT is better at skills and RLHF at pairs, so neither is idle, and ties go to the nearest to SFT."""
    candidates = [entry.model_dump(exclude_unset=True) for entry in small_study.candidates]
    study = tiny.study(tmp_path, candidates=candidates, select={"goal": "all"})
    means = {**MEANS, "linear w=0.5": ((0.65, 1.1), (0.65, 1.1))}  # 3/4 and 9/10 of the way
    found = outcome_by_rows(study, means, AWAY, noise=0.01).choice
    assert found.group == "linear w=0.5"
    assert found.needed is None
    assert found.of == "mean share"
    assert "best mean share of the best input over pairs.preference_accuracy and skills.nll on the validation rows" in found.why
