"""The rule chooses on validation rows alone; the front is what nothing beats; labels never overlap."""

import pytest

from mergetool.study.analysis.choose import pareto, summarise
from mergetool.study.candidates.align import AlignCandidate
from mergetool.study.candidates.model import ModelCandidate
from tests.study.lines import SCORES, outcome, row


def test_the_best_tax_among_those_that_keep_the_reward_is_chosen_on_validation(small_study):
    found = outcome(small_study, **SCORES)
    assert found.choice.needed == pytest.approx(0.68)
    assert found.choice.group == "ties w=0.9", "linear w=0.5 is better on the test rows, which must not matter"
    assert found.choice.by_family == {"rlhf": "rlhf", "linear": "linear w=0.9", "ties": "ties w=0.9"}


def test_a_lower_nll_is_better_on_the_front(small_study):
    assert outcome(small_study, **SCORES).front == ["linear w=0.5"]


def test_nothing_is_chosen_where_alignment_gained_nothing(small_study):
    found = outcome(small_study, **{**SCORES, "rlhf": ((0.5, 0, 2.0), (0.9, 0, 2.0))})
    assert found.choice.group is None
    assert "did not raise" in found.choice.why


def test_the_tax_is_the_loss_whichever_way_the_metric_points(small_study):
    assert outcome(small_study, **SCORES).tax_paid() == (pytest.approx(1.0), None)


def test_seeds_become_mean_and_sample_deviation(small_study):
    candidates = [
        ModelCandidate("sft", "sft", "sft"),
        AlignCandidate("a 0", "a", "a", seed=0),
        AlignCandidate("a 1", "a", "a", seed=1),
    ]
    rows = [row("sft", *SCORES["sft"]), row("a 0", (0.6, 0, 1), (0.6, 0, 1)), row("a 1", (0.8, 0, 1), (0.8, 0, 1))]
    group = summarise(small_study, candidates, rows).group("a")
    score = group.scores["test"]["pairs.preference_accuracy"]
    assert (score.mean, score.sd) == (pytest.approx(0.7), pytest.approx(0.02**0.5))


def test_the_front_is_what_nothing_beats():
    points = [("a", 0, 3), ("b", 1, 2), ("c", 1, 1), ("d", 2, 0), ("e", 0.5, 1.9)]
    assert pareto(points) == ["a", "b", "d"]
