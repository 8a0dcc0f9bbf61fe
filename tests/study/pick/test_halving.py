"""Halving finds the best of many with a part of the rows, reads each row once, and stops when the time is up."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mergetool.study.analysis.row_scores import RowColumns
from mergetool.study.pick.halving import Remembered, halve, rungs_of
from mergetool.study.recipe.columns import columns
from tests.study import tiny

SKILL = {"low": 0.0, "high": 1.0, **{f"c{at}": at / 20 for at in range(16)}}
HARD = np.random.default_rng(0).normal(size=512)


@pytest.fixture
def by_skill(tmp_path):
    return [one for one in columns(tiny.study(tmp_path)) if one.name == "pairs.reward_margin"]


def measure(asked):
    def rows(name, start, stop, before):
        asked.append((name, start, stop))
        own = np.random.default_rng(len(name) + int(SKILL[name] * 20)).normal(size=512) * 0.2
        values = (SKILL[name] + HARD + own)[:stop].tolist()
        return {"pairs.reward_margin": RowColumns((values, [1.0] * stop))}

    return rows


def test_the_best_is_kept_and_rows_are_read_once(by_skill) -> None:
    asked = []
    rungs = rungs_of(512, 16, least=16, last=3)
    assert rungs == [64, 128, 256]
    found = halve(["low", "high"], [f"c{at}" for at in range(16)], by_skill, rungs, 3, measure(asked))
    assert found.kept[0] == "c15"
    assert len(found.kept) == 3
    assert set(found.kept) | set(found.dropped) == {f"c{at}" for at in range(16)}
    assert found.dropped["c0"][0] == 64
    assert found.dropped["c0"][1] == pytest.approx(0.0, abs=0.1)
    assert [(start, stop) for name, start, stop in asked if name == "c15"] == [(0, 64), (64, 128), (128, 256)]
    assert sum(stop - start for name, start, stop in asked if name.startswith("c")) < 16 * 512 / 3


def test_when_the_time_is_up_the_best_of_what_was_measured_is_kept(by_skill) -> None:
    asked = []
    rivals = [f"c{at}" for at in range(16)]
    found = halve(["low", "high"], rivals, by_skill, [64, 128], 3, measure(asked), lambda: len(asked) >= 2 + 10)
    assert found.ended_early
    assert found.kept == ["c9", "c8", "c7"]
    assert found.dropped["c15"][0] == 0
    none = halve(["low", "high"], rivals, by_skill, [64, 128], 3, measure(asked), lambda: True)
    assert none.kept == ["c2", "c1", "c0"], "a choice among a few is better than none"
    late = halve(["low", "high"], rivals, by_skill, [64, 128], 3, measure(late_asked := []), lambda: len(late_asked) >= 20)
    assert (late.kept[0], late.ended_early) == ("c15", True), "the second round began with the best of the first"


def test_what_was_measured_before_a_kill_is_not_measured_again(tmp_path, by_skill) -> None:
    asked = []
    path = tmp_path / "halving.jsonl"
    first = Remembered(path, measure(asked), lambda name: f"key of {name}")("c1", 0, 8, None)
    with path.open("a") as file:
        file.write(json.dumps({"key": "key of c2"})[:-4])
    again = Remembered(path, measure(asked), lambda name: f"key of {name}")
    assert again("c1", 0, 8, None) == first
    assert again("c2", 0, 8, None)
    assert [name for name, _, _ in asked] == ["c1", "c2"]
