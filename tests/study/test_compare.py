"""A study in one call: checked before anything is made, run, drawn and reported; a second call does nothing."""

from __future__ import annotations

import pytest

from mergetool.errors import RecipeError
from mergetool.study.compare import compare
from tests.study import tiny

LINEAR = {"name": "linear", "merge": {"merge_method": "linear", "weight": 0.5}}


def test_it_is_run_and_reported_and_not_run_again(folder, tmp_path) -> None:
    study = tiny.study(folder, candidates=[LINEAR])
    first = compare(study, tmp_path / "out")
    assert first.ran == len(first.rows) > 0
    for name in ("results.jsonl", "pareto.png", "report.html"):
        assert (tmp_path / "out" / name).exists(), name
    assert compare(study, tmp_path / "out").ran == 0


def test_a_mistake_leaves_nothing_behind(folder, tmp_path) -> None:
    wrong = {**LINEAR, "merge": {"merge_method": "linera", "weight": 0.5}}
    with pytest.raises(RecipeError, match="linera"):
        compare(tiny.study(folder, candidates=[wrong]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
