"""A choice that test rows contradict, or that few rows made, is doubted; one that holds is not."""

from __future__ import annotations

from tests.study.lines import AWAY, MEANS, SCORES, outcome, outcome_by_rows


def test_what_holds_on_the_test_rows_is_not_doubted(small_study) -> None:
    assert outcome_by_rows(small_study, MEANS, AWAY).choice.warnings == ()


def test_a_choice_that_others_beat_on_both_axes_of_the_test_rows_is_doubted(small_study) -> None:
    means = {**MEANS, "linear w=0.5": ((0.6, 1.2), (0.74, 1.2))}
    (said,) = outcome_by_rows(small_study, means, AWAY).choice.warnings
    assert said.startswith("the test rows contradict the validation rows: there linear w=0.5 beat linear w=0.9")


def test_a_runner_up_that_is_better_on_the_test_rows_is_told(small_study) -> None:
    means = {**MEANS, "ties w=0.9": ((0.69, 1.5), (0.66, 1.2))}
    (said,) = outcome_by_rows(small_study, means, AWAY).choice.warnings
    assert "linear w=0.9 is worse than the runner-up ties w=0.9 in skills.nll, +0.300" in said


def test_a_choice_that_loses_its_gain_on_the_test_rows_is_doubted(small_study) -> None:
    means = {**MEANS, "linear w=0.9": ((0.69, 1.501), (0.6, 1.5))}
    (said,) = [one for one in outcome_by_rows(small_study, means, AWAY).choice.warnings if "keeps less" in one]
    assert said.startswith("on the test rows linear w=0.9 keeps less than 90% of the gain of rlhf over sft")


def test_few_rows_and_models_that_are_alike_are_told(small_study) -> None:
    said = outcome_by_rows(small_study, MEANS, AWAY, rows=12, noise=2.0).choice.warnings
    assert any(one.startswith("12 rows are few to choose on: a difference in skills.nll below") for one in said)
    assert any("rlhf and sft cannot be told apart in pairs.preference_accuracy" in one for one in said)


def test_without_rows_there_is_nothing_to_doubt_with(small_study) -> None:
    assert outcome(small_study, **SCORES).choice.warnings == ()
