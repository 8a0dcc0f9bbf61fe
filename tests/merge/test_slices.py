"""A result of slices has the layers that the recipe says, loads, and is the same for any threads and after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mergetool.errors import CheckpointError, RecipeError
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
from mergetool.merge.recipe_entries import Conditional
from mergetool.merge.slices import over
from tests.helpers import random_weights, write_checkpoint, write_triple


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_triple(tmp_path_factory.mktemp("triple"))


def stack(*sources: tuple[Path, int, int], **changes: Any) -> MergeRecipe:
    slices = [{"sources": [{"model": str(model), "layer_range": [first, last]}]} for model, first, last in sources]
    return MergeRecipe.model_validate({"merge_method": "passthrough", "slices": slices, **changes})


def layer(weights: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
    at = f"model.layers.{number}."
    return {name.removeprefix(at): tensor for name, tensor in weights.items() if name.startswith(at)}


def test_every_layer_is_its_origins_byte_for_byte_and_the_ends_are_those_of_the_first_and_the_last_slice(
    triple: dict[str, Path], tmp_path: Path
) -> None:
    sft, rlhf = (load_file(triple[name] / "model.safetensors") for name in ("sft", "rlhf"))
    manifest = merge_to_directory(
        plan_merge(stack((triple["sft"], 0, 2), (triple["sft"], 1, 3), (triple["rlhf"], 0, 1))), tmp_path / "out"
    )
    found = load_file(tmp_path / "out/model.safetensors")
    for number, (model, i) in enumerate([(sft, 0), (sft, 1), (sft, 1), (sft, 2), (rlhf, 0)]):
        for name, tensor in layer(model, i).items():
            assert torch.equal(found[f"model.layers.{number}.{name}"], tensor)
    assert torch.equal(found["model.embed_tokens.weight"], sft["model.embed_tokens.weight"])
    assert torch.equal(found["model.norm.weight"], rlhf["model.norm.weight"])
    assert len(found) == 5 * len(layer(sft, 0)) + 2
    assert manifest["engine"] == "native"
    assert manifest["warnings"] == []  # it is none of its inputs, though each of its layers is one's


def test_the_result_loads_with_its_depth(triple: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    merge_to_directory(plan_merge(stack((triple["sft"], 0, 3), (triple["rlhf"], 1, 3))), tmp_path / "out")
    model, told = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert model.config.num_hidden_layers == len(model.model.layers) == 5
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]


def test_bytes_do_not_depend_on_threads_and_the_same_merge_is_known(triple: dict[str, Path], tmp_path: Path) -> None:
    recipe = stack((triple["sft"], 0, 2), (triple["rlhf"], 0, 3))
    merge_to_directory(plan_merge(recipe), tmp_path / "one", threads=1)
    merge_to_directory(plan_merge(recipe), tmp_path / "many", threads=5)
    one, many = ((tmp_path / name / "model.safetensors") for name in ("one", "many"))
    assert one.read_bytes() == many.read_bytes()
    before = many.stat().st_mtime_ns
    merge_to_directory(plan_merge(recipe), tmp_path / "many")
    assert many.stat().st_mtime_ns == before


def test_random_masks_of_two_slices_are_two(triple: dict[str, Path], tmp_path: Path) -> None:
    sources = [{"model": str(triple[name]), "layer_range": [0, 1], "parameters": {"weight": 1.0}} for name in ("base", "sft")]
    recipe = {"merge_method": "dare_linear", "base_model": str(triple["base"]), "parameters": {"density": 0.5},
              "slices": [{"sources": sources}, {"sources": sources}]}  # fmt: skip
    manifest = merge_to_directory(plan_merge(MergeRecipe.model_validate(recipe)), tmp_path / "out")
    found = load_file(tmp_path / "out/model.safetensors")
    assert not torch.equal(found["model.layers.0.mlp.up_proj.weight"], found["model.layers.1.mlp.up_proj.weight"])
    assert [name.split()[0] for name in manifest["kept"]] == ["slices[0].sources[1]", "slices[1].sources[1]"]


@pytest.mark.parametrize(
    ("slices", "says"),
    [
        ([[("sft", 0, 4)]], r"layer_range \[0, 4\]: .*sft has 3 layers; write at most \[0, 3\]"),
        ([[("sft", 0, 1), ("rlhf", 0, 2)]], r"slices\[0\]: its sources have different numbers of layers"),
        ([[("sft", 0, 1), ("sft", 1, 2)]], r"slices\[0\].sources\[1\]: other layers of .*sft are in this slice already"),
        ([[("sft", 0, 1)], [("sft", 0, 1), ("rlhf", 0, 1)]], "passthrough takes 1 model, found 2"),
    ],
)
def test_a_slice_that_cannot_be_is_refused_from_headers(triple: dict[str, Path], slices: list, says: str) -> None:
    entries = [{"sources": [{"model": str(triple[m]), "layer_range": [a, b]} for m, a, b in one]} for one in slices]
    with pytest.raises(RecipeError, match=says):
        plan_merge(MergeRecipe.model_validate({"merge_method": "passthrough", "slices": entries}))


def test_slices_of_models_that_read_weights_differently_are_refused(triple: dict[str, Path], tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", random_weights(7), rope_theta=500000.0)
    recipe = stack((triple["sft"], 0, 2), (other, 2, 3))
    with pytest.raises(CheckpointError, match="uses its weights in another way"):
        plan_merge(recipe)
    assert any("rope" in note for note in plan_merge(recipe, allow_differences=True).notes)


def test_slices_of_models_of_other_widths_are_refused(triple: dict[str, Path], tmp_path: Path) -> None:
    wide = {"intermediate_size": 64}
    other = write_checkpoint(tmp_path / "wide", random_weights(7, **wide), **wide)
    with pytest.raises(CheckpointError, match="has another shape"):
        plan_merge(stack((triple["sft"], 0, 2), (other, 2, 3)))


def test_an_untied_head_comes_from_the_last_slice_and_is_said_in_the_config(triple: dict[str, Path], tmp_path: Path) -> None:
    untied = {"tie_word_embeddings": False}
    other = write_checkpoint(tmp_path / "untied", random_weights(7, **untied), **untied)
    merge_to_directory(plan_merge(stack((other, 0, 1), (other, 2, 3))), tmp_path / "out")
    found = load_file(tmp_path / "out/model.safetensors")
    assert torch.equal(found["lm_head.weight"], load_file(other / "model.safetensors")["lm_head.weight"])
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False


def test_a_nearer_level_of_parameters_is_read_first_and_the_other_where_it_says_nothing() -> None:
    mlp, rest = Conditional(filter="mlp", value=0.1), Conditional(filter="norm", value=0.2)
    assert over({"a": 1}, {"a": 2, "b": 3}) == {"a": 1, "b": 3}
    assert over({"a": [mlp]}, {"a": 2}) == {"a": [mlp, Conditional(value=2)]}
    assert over({"a": mlp}, {"a": [rest]}) == {"a": [mlp, rest]}
    assert over({"a": [0.1, 0.2]}, {"a": [rest]}) == {"a": [0.1, 0.2]}
