"""A recipe is read strictly, keeps what was written, and a setting means for a tensor what it means in mergekit."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.errors import RecipeError
from mergetool.merge.recipe import Conditional, MergeRecipe, evaluate, has_gradients, load_merge_recipe, merge_recipe

NAME = "model.layers.3.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("setting", "t", "value"),
    [
        (0.5, 0.3, 0.5),
        ([0.0, 1.0], 0.25, 0.25),
        ([0.0, 0.5, 0.0], 0.75, 0.25),
        ([1.0], 0.9, 1.0),
        ([True, False], 0.4, True),
        (Conditional(value=2.0, filter="mlp"), 0.0, 2.0),
        (Conditional(value=2.0, filter="attn"), 0.0, None),
        ([Conditional(value=2.0, filter="attn"), Conditional(value=[0.0, 1.0])], 0.5, 0.5),
    ],
)
def test_what_a_setting_means_for_one_tensor(setting, t: float, value) -> None:
    assert evaluate(setting, NAME, t) == value


def test_a_recipe_keeps_what_was_written_and_finds_paths_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "sft").mkdir()
    path = tmp_path / "r.yaml"
    path.write_text("merge_method: linear\nmodels:\n- {model: sft, parameters: {weight: 1}}\n- {model: org/name}\n")
    recipe = load_merge_recipe(path)
    assert [entry.model for entry in recipe.models] == [str(tmp_path / "sft"), "org/name"]
    assert recipe.to_dict()["models"][0]["parameters"] == {"weight": 1}
    assert "seed" not in recipe.to_dict()


def test_mergekits_mapping_form_of_a_reference_is_its_text_form() -> None:
    model = {"model": {"path": "org/a", "revision": "v1"}, "lora": "org/b"}
    recipe = merge_recipe({"merge_method": "linear", "models": [{"model": model}]})
    assert recipe.models[0].model == "org/a@v1+org/b"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"merge_method": "linear"}, "exactly one of models, slices and modules"),
        ({"merge_methd": "linear", "models": [{"model": "a"}]}, "merge_method"),
        ({"merge_method": "linear", "models": [{"model": {"pth": "a"}}]}, "unknown key 'pth'"),
    ],
)
def test_a_mistake_is_one_line(content: dict, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        merge_recipe(content)


def test_only_lists_over_the_depth_are_gradients() -> None:
    def recipe(weight: object) -> MergeRecipe:
        return merge_recipe({"merge_method": "linear", "models": [{"model": "a", "parameters": {"weight": weight}}]})

    assert has_gradients(recipe([0, 1]))
    assert has_gradients(recipe([{"filter": "mlp", "value": [0, 1]}, {"value": 1}]))
    assert not has_gradients(recipe(0.5))
    assert not has_gradients(recipe([{"filter": "mlp", "value": 1}, {"value": 0}]))
