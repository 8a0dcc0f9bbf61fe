"""Which tensor belongs to which part, and that a recipe which says so means it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergetool.checkpoint.layout import read_layout
from mergetool.config.strict_yaml import validate
from mergetool.errors import RecipeError
from mergetool.merge import MergeRecipe, merge_tensors, plan_merge
from mergetool.merge.parts import complement, parts_of
from tests.helpers import random_weights, write_checkpoint


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two untied models of five layers: all ones and all zeros, so that a merge shows its weights."""
    folder = tmp_path_factory.mktemp("parts")
    config = {"num_hidden_layers": 5, "tie_word_embeddings": False}
    ones = {name: torch.ones_like(w) for name, w in random_weights(0, **config).items()}
    return {
        "sft": write_checkpoint(folder / "sft", ones, **config),
        "rlhf": write_checkpoint(folder / "rlhf", {name: 0 * w for name, w in ones.items()}, **config),
    }


def test_layers_are_split_into_consecutive_parts_as_equal_as_they_can_be(two) -> None:
    layout = read_layout(two["sft"])
    assert parts_of(layout, 3).layers == (0, 0, 1, 1, 2)
    assert parts_of(layout, 1).layers == (0,) * 5
    assert parts_of(layout, "layers").layers == (0, 1, 2, 3, 4)
    with pytest.raises(RecipeError, match=r"6 parts of a model with 5 layers; give 1 to 5, or `layers`"):
        parts_of(layout, 6)


def test_embeddings_go_with_the_first_part_and_norm_and_head_with_the_last_or_where_the_recipe_says(two) -> None:
    layout = read_layout(two["sft"])
    ends = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    assert [parts_of(layout, 3).of(name) for name in ends] == [0, 2, 2]
    placed = parts_of(layout, 3, {"embeddings": "sft", "final_norm": "rlhf", "lm_head": "average"})
    assert [placed.share(name, [0.1, 0.2, 0.3], 0.25) for name in ends] == [1.0, 0.0, 0.25]


@pytest.mark.parametrize("role", ["block", "average", "sft", "rlhf"])
@pytest.mark.parametrize("blocks", [1, 3, "layers"])
def test_the_merge_of_the_setting_has_each_parts_share_in_each_tensor(two, blocks, role) -> None:
    parts = parts_of(read_layout(two["sft"]), blocks, {"embeddings": role, "final_norm": role, "lm_head": role})
    shares = [(1 + k) / (parts.count + 2) for k in range(parts.count)]
    setting = parts.setting(shares, 0.6)
    recipe = {
        "merge_method": "linear",
        "models": [
            {"model": str(two["sft"]), "parameters": {"weight": setting}},
            {"model": str(two["rlhf"]), "parameters": {"weight": complement(setting)}},
        ],
    }
    for name, tensor in merge_tensors(plan_merge(validate(MergeRecipe, recipe, "recipe"))):
        assert tensor.unique().tolist() == pytest.approx([parts.share(name, shares, 0.6)], abs=1e-7), name
