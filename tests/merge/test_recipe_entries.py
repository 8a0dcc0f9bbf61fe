"""Models, slices and modules are read strictly: a mistake is named by its place."""

from __future__ import annotations

from typing import Any

import pytest

from mergetool.errors import RecipeError
from mergetool.merge.recipe import merge_recipe
from mergetool.merge.recipe_entries import ModelEntry, SliceEntry, reference_of


def recipe(**changes: Any) -> dict[str, Any]:
    return {"merge_method": "passthrough", **changes}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"slices": [{"sources": [{"model": "a"}]}]}, r"slices\[0\].sources\[0\].layer_range: required"),
        ({"slices": [{"sources": [{"model": "a", "layer_range": [2, 2]}]}]}, r"layer_range \[2, 2\] holds no layer"),
        ({"slices": [{"sources": [{"model": "a", "layer_range": [0, 2], "parametres": {}}]}]}, "did you mean 'parameters'"),
        ({"slices": [{"sources": []}]}, r"slices\[0\].sources"),
        ({"modules": {"default": {}}}, "a module needs exactly one of models and slices"),
        ({"modules": {"default": {"models": [{"model": "a"}], "parameter": {}}}}, "did you mean 'parameters'"),
    ],
)
def test_a_mistake_is_told_with_its_place(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        merge_recipe(recipe(**changes))


def test_what_was_written_is_kept_and_truths_are_truths() -> None:
    content = recipe(slices=[{"sources": [{"model": "org/a", "layer_range": [0, 2]}], "parameters": {"normalize": 1.0}}])
    read = merge_recipe(content)
    assert read.slices is not None
    assert read.slices[0].parameters == {"normalize": True}
    assert read.to_dict()["slices"] == [
        {"sources": [{"model": "org/a", "layer_range": [0, 2]}], "parameters": {"normalize": True}}
    ]


def test_null_parameters_are_none() -> None:
    assert ModelEntry.model_validate({"model": "a", "parameters": None}).parameters == {}
    assert SliceEntry.model_validate({"sources": [{"model": "a", "layer_range": [0, 1]}], "parameters": None}).parameters == {}


def test_a_reference_in_mergekits_long_form_is_a_text() -> None:
    assert reference_of({"model": {"path": "org/a", "revision": "b"}, "lora": "org/c"}) == "org/a@b+org/c"
