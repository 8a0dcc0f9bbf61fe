"""The sentences about a choice say what the choice holds; the table of differences has what could be compared."""

from __future__ import annotations

import json

from mergetool.study.report.choice_words import certainty, chosen_sentence, compared_with, difference_rows, differences_as_facts
from tests.study.lines import AWAY, MEANS, SCORES, outcome, outcome_by_rows


def test_the_runner_up_what_is_tied_and_how_many_rows_would_tell_are_said(small_study) -> None:
    summary = outcome_by_rows(small_study, MEANS, AWAY)
    assert chosen_sentence(summary).startswith("Chosen: linear w=0.9: nearest to sft")
    runner_up, tied = certainty(summary)
    told = "Runner-up: ties w=0.9. linear w=0.9 less it in skills.nll, on 200 validation rows: +0.001 ["
    assert runner_up.startswith(told)
    assert "rows would tell the two apart" in runner_up
    assert tied == "Cannot be told apart from it at 95 %: ties w=0.9."


def test_old_results_say_that_they_have_no_rows(small_study) -> None:
    (line,) = certainty(outcome(small_study, **SCORES))
    assert line.startswith("6 candidates were measured before scores were kept row by row")


def test_the_table_has_a_column_for_each_thing_compared(small_study) -> None:
    summary = outcome_by_rows(small_study, MEANS, AWAY)
    assert [(key, len(columns)) for key, _, columns in compared_with(summary)] == [("sft", 2), ("rlhf", 2), ("linear", 1)]
    rows = dict(difference_rows(summary))
    assert rows["sft"][:2] == [None, None]
    assert rows["ties w=0.9"][4] is not None
    assert not difference_rows(outcome(small_study, **SCORES))


def test_differences_are_plain_values(small_study) -> None:
    facts = json.loads(json.dumps(differences_as_facts(outcome_by_rows(small_study, MEANS, AWAY))))
    assert set(facts["test"]["ties w=0.9"]["sft"]["skills.nll"]) >= {"mean", "low", "high", "se", "rows", "clusters", "seeds"}
