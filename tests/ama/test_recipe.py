"""What may be written in an AMA recipe, and where its relative paths start."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.ama import ama_recipe
from mergetool.errors import RecipeError
from tests.ama.small import mapping


def test_the_recipe_that_ships_is_valid() -> None:
    from mergetool.ama import check_ama, load_ama_recipe
    from mergetool.config.packaged import list_recipes, recipe_path

    names = [name for kind, name in list_recipes() if kind == "ama"]
    assert names
    for name in names:
        path = recipe_path("ama", name)
        assert f"mergetool ama recipes/ama/{name}.yaml" in path.read_text()
        if "lab:" in path.read_text():
            assert check_ama(load_ama_recipe(path))["parameters"] > 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"alpha": 1.5}, "alpha"),
        ({"alpha": [0.2, 0.2]}, "alpha names a value twice; remove one"),
        ({"blocs": 3}, "did you mean 'blocks'"),
        ({"reward": "x.py:f"}, "reward is given and data.best_of is not"),
        ({"data": {"train": "x", "best_of": 4}}, "data.best_of is given and reward is not"),
        ({"embeddings": "bases"}, "embeddings"),
    ],
)
def test_a_mistake_names_the_place_and_the_next_step(changes: dict, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        ama_recipe(mapping(**changes))
    assert says in str(caught.value)


def test_relative_paths_start_from_the_recipes_directory_and_hub_ids_stay(tmp_path: Path) -> None:
    (tmp_path / "sft").mkdir()
    recipe = ama_recipe(mapping(rlhf_model="org/rlhf"), tmp_path)
    assert recipe.model(recipe.sft_model) == str(tmp_path / "sft")
    assert recipe.model(recipe.rlhf_model) == "org/rlhf"
    assert recipe.model("sft+org/adapter") == f"{tmp_path / 'sft'}+org/adapter"
    assert recipe.source("pairs.jsonl") == tmp_path / "pairs.jsonl"


def test_one_mean_is_a_list_of_one() -> None:
    assert ama_recipe(mapping(alpha=0.3)).alphas == [0.3]
    assert ama_recipe(mapping(alpha=[0.2, 0.6])).alphas == [0.2, 0.6]
