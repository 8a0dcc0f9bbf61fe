"""What a recipe asks for is refused from headers alone, or becomes a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mergetool.errors import CheckpointError, RecipeError
from mergetool.merge import MergeRecipe, plan_merge
from mergetool.merge.planner import references
from tests.helpers import write_triple


def recipe(triple: dict[str, Path], **changes: Any) -> MergeRecipe:
    models = [{"model": str(triple[name]), "parameters": {"weight": 0.5}} for name in ("sft", "rlhf")]
    content = {"merge_method": "ties", "base_model": str(triple["base"]), "models": models, **changes}
    return MergeRecipe.model_validate({key: value for key, value in content.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"merge_method": "tise"}, "unknown merge_method 'tise'; did you mean 'ties'"),
        ({"base_model": None}, "ties needs base_model"),
        ({"parameters": {"densty": 0.5}}, "did you mean 'density'"),
    ],
)
def test_a_mistake_is_found_before_weights_are_read(tmp_path: Path, changes: dict, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        plan_merge(recipe(write_triple(tmp_path), **changes))


def test_slices_that_take_every_layer_are_the_models_form(tmp_path: Path) -> None:
    triple = write_triple(tmp_path)
    models = [{"model": str(triple[name]), "parameters": {"weight": 0.5}} for name in ("sft", "rlhf")]
    sliced = {"merge_method": "linear", "slices": [{"sources": [{**one, "layer_range": [0, 3]} for one in models]}]}
    plan = plan_merge(MergeRecipe.model_validate(sliced))
    assert plan.engine == "native"
    assert plan.tensors == plan_merge(MergeRecipe.model_validate({"merge_method": "linear", "models": models})).tensors


def test_every_model_of_any_dialect_is_named() -> None:
    content = {"base_model": "a", "models": [{"model": "b", "relative_to": "c"}], "slices": [{"sources": [{"model": "d"}]}]}
    assert references(content) == ["a", "b", "c", "d"]


def test_models_that_use_weights_in_other_ways_are_refused_by_key_and_may_be_allowed(tmp_path: Path) -> None:
    triple = write_triple(tmp_path)
    config = json.loads((triple["rlhf"] / "config.json").read_text())
    (triple["rlhf"] / "config.json").write_text(json.dumps({**config, "rope_theta": 500000.0, "transformers_version": "4"}))
    with pytest.raises(CheckpointError, match=r"rlhf uses its weights in another way .*rope.*--allow-config-differences"):
        plan_merge(recipe(triple))
    assert any("rope" in note for note in plan_merge(recipe(triple), allow_differences=True).notes)
