"""Ready checkpoints are candidates: one, a list, or a pattern."""

import shutil

import pytest

from mergetool.errors import MergetoolError
from mergetool.study.recipe.expand import expand
from tests.study import tiny


def test_ready_checkpoints_are_taken_by_list_or_pattern_in_the_order_of_their_steps(folder, tmp_path):
    for step in (100, 20, 3):
        shutil.copytree(folder / "rlhf", tmp_path / "run" / f"checkpoint-{step}")
    (tmp_path / "run/checkpoint-7").mkdir()  # no checkpoint yet
    pattern = {"name": "run", "checkpoint": str(tmp_path / "run/checkpoint-*")}
    listed = {"name": "run", "checkpoint": [str(tmp_path / f"run/checkpoint-{step}") for step in (100, 3, 20)]}
    for entry in (pattern, listed):
        found = [one for one in expand(tiny.study(folder, candidates=[entry])) if one.kind == "checkpoint"]
        assert [one.name for one in found] == ["run step=3", "run step=20", "run step=100"]
        assert {one.family for one in found} == {"run"}
    with pytest.raises(MergetoolError, match="no checkpoint directory matches"):
        expand(tiny.study(folder, candidates=[{"name": "run", "checkpoint": "nowhere/*"}]))
    both = [{"name": "two", "checkpoint": ["sft", "rlhf"]}]
    assert [one.name for one in expand(tiny.study(folder, candidates=both))][-2:] == ["two rlhf", "two sft"]
