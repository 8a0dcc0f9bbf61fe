"""What a method demands of a recipe: models, a base, calibrations; and what of mergekit's words it does not read."""

from __future__ import annotations

from typing import Any

import pytest

from mergetool.errors import RecipeError
from mergetool.merge import MergeRecipe
from mergetool.merge.demands import must_suit
from mergetool.methods import METHODS


def lines(method: str, models: int = 2, **recipe: Any) -> list[str]:
    named = [{"model": f"m{i}", "parameters": {"weight": 1.0}} for i in range(models)]
    return must_suit(METHODS[method], MergeRecipe.model_validate({"merge_method": method, "models": named, **recipe}))


@pytest.mark.parametrize(
    ("method", "models", "recipe", "says"),
    [
        ("ties", 2, {}, "ties needs base_model"),
        ("slerp", 3, {"base_model": "m0"}, "base_model and one other model, found 2 others"),
        ("nuslerp", 3, {}, "nuslerp takes 2 models, found 3"),
        ("model_stock", 1, {"base_model": "b"}, "model_stock takes at least 2 models beside base_model, found 1"),
        ("passthrough", 2, {}, "passthrough takes 1 model, found 2"),
        ("null_space", 1, {"base_model": "b"}, "needs to know what should stay"),
        ("regmean", 2, {}, r"models\[0\] has no calibration"),
        ("ties", 2, {"base_model": "b", "parameters": {"densiti": 1}}, "has no parameter 'densiti'; did you mean 'density'"),
    ],
)
def test_what_a_method_cannot_do_is_refused(method: str, models: int, recipe: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        lines(method, models, **recipe)


def test_words_that_are_not_read_are_one_line() -> None:
    said = lines("sce", base_model="b", parameters={"density": 0.5, "rescale": True})
    assert said == ["sce does not read density, rescale, weight: left out"]
    assert lines("ties", base_model="b", parameters={"density": 0.5}) == []


def test_a_part_of_a_calibrated_recipe_is_refused() -> None:
    models = [{"model": "m", "parameters": {"weight": 1.0}}]
    whole = MergeRecipe.model_validate(
        {"merge_method": "null_space", "base_model": "b", "models": models, "calibration": {"data": "rows.jsonl"}}
    )
    assert must_suit(METHODS["null_space"], whole) == []
    with pytest.raises(RecipeError, match="slices and modules"):
        must_suit(METHODS["null_space"], whole, whole)
