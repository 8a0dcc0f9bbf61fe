"""Candidates that differ in their seed alone are one group: mean, spread, and mean distance where every seed has one."""

from __future__ import annotations

import pytest

from mergetool.study.analysis.groups import good, groups_of
from mergetool.study.candidates.align import AlignCandidate
from mergetool.study.recipe.columns import columns
from tests.study.lines import row

RUNS = [AlignCandidate(f"a {seed}", "a", "a", seed=seed) for seed in (0, 1)]


def test_seeds_become_one_group_and_failures_none(small_study) -> None:
    rows = [
        row("a 0", (0.6, 0, 1), (0.6, 0, 1), distances={"sft": 1.0}),
        row("a 1", (0.8, 0, 1), (0.8, 0, 1), distances={"sft": 3.0}),
    ]
    (group,) = groups_of(RUNS, rows, columns(small_study))
    assert (group.members, group.distances) == (("a 0", "a 1"), {"sft": 2.0})
    assert group.scores["test"]["pairs.preference_accuracy"].mean == pytest.approx(0.7)
    (left,) = groups_of(RUNS, [{**rows[0], "error": "broken"}, rows[1]], columns(small_study))
    assert left.members == ("a 1",)


def test_a_distance_that_a_seed_lacks_is_none(small_study) -> None:
    rows = [row("a 0", (0.6, 0, 1), (0.6, 0, 1), distances={"sft": 1.0}), row("a 1", (0.8, 0, 1), (0.8, 0, 1))]
    assert groups_of(RUNS, rows, columns(small_study))[0].distances == {}


def test_good_turns_what_is_better_when_lower(small_study) -> None:
    by_name = {one.name: one for one in columns(small_study)}
    assert good(by_name["skills.nll"], 2.0) == -2.0
    assert good(by_name["pairs.preference_accuracy"], 0.5) == 0.5
