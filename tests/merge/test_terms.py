"""What a tensor is made of: weights by its depth and its name, its own options, and a delta that starts where it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergetool.errors import CheckpointError, RecipeError
from mergetool.merge import MergeRecipe, plan_merge
from tests.helpers import random_weights, write_checkpoint, write_triple


def terms(triple: dict[str, Path], models: list[dict], **recipe: object) -> dict[str, tuple]:
    named = [{**m, "model": str(triple[m["model"]])} for m in models]
    for one in named:
        if "relative_to" in one:
            one["relative_to"] = str(triple[one["relative_to"]])
    content = {"merge_method": "task_arithmetic", "base_model": str(triple["base"]), "models": named, **recipe}
    return {tensor.name: tensor.terms for tensor in plan_merge(MergeRecipe.model_validate(content)).tensors}


def test_a_list_is_a_gradient_over_the_layers(tmp_path: Path) -> None:
    found = terms(write_triple(tmp_path), [{"model": "sft", "parameters": {"weight": [0.0, 1.0]}}])
    weights = [found[f"model.layers.{i}.mlp.up_proj.weight"][0].weight for i in range(3)]
    assert weights == [0.0, 0.5, 1.0]


def test_a_filter_chooses_by_name_and_a_model_may_start_elsewhere(tmp_path: Path) -> None:
    setting = [{"filter": "mlp", "value": 0.25}, {"value": 0.75}]
    models = [{"model": "rlhf", "relative_to": "sft", "parameters": {"weight": setting}}]
    found = terms(write_triple(tmp_path), models)
    term = found["model.layers.1.mlp.up_proj.weight"][0]
    assert term.weight == 0.25
    assert found["model.norm.weight"][0].weight == 0.75
    assert term.source != term.origin
    assert term.origin is not None


def test_the_base_among_the_models_is_no_delta(tmp_path: Path) -> None:
    models = [{"model": name, "parameters": {"weight": 1.0}} for name in ("base", "sft")]
    assert [term.role for term in terms(write_triple(tmp_path), models)["model.norm.weight"]] == ["1"]


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "della", "nuslerp", "multislerp", "linear"])
def test_weights_that_are_all_0_are_an_error(tmp_path: Path, method: str) -> None:
    models = [{"model": name, "parameters": {"weight": 0}} for name in ("sft", "rlhf")]
    with pytest.raises(RecipeError, match=r"are all 0|weights are 0"):
        terms(write_triple(tmp_path), models, merge_method=method)


@pytest.mark.parametrize(
    ("weights", "tensor"),
    [((1.0, -1.0), "embed_tokens"), (([{"filter": "mlp", "value": 0}, {"value": 1}],) * 2, r"layers\.0\.mlp")],
)
def test_weights_without_a_sum_are_an_error_where_they_are_divided_by_it(tmp_path: Path, weights: tuple, tensor: str) -> None:
    models = [{"model": n, "parameters": {"weight": w}} for n, w in zip(("sft", "rlhf"), weights, strict=True)]
    triple = write_triple(tmp_path)
    with pytest.raises(RecipeError, match=f"weights of tensor '.*{tensor}.*normalize divides by their sum"):
        terms(triple, models, merge_method="linear")
    assert terms(triple, models, merge_method="linear", parameters={"normalize": False})
    assert terms(triple, models)  # of deltas nothing is left of such a tensor but the base


@pytest.mark.parametrize("base", ["numbers", "codes"])
def test_integers_under_the_name_of_a_weight_are_refused(tmp_path: Path, base: str) -> None:
    name, weights = "model.layers.1.mlp.up_proj.weight", random_weights(0)
    places = {"numbers": write_checkpoint(tmp_path / "numbers", weights)}
    places["codes"] = write_checkpoint(tmp_path / "codes", {**weights, name: weights[name].sign().to(torch.int8)})
    order = sorted(places, key=lambda which: which != base)
    models = [{"model": str(places[which]), "parameters": {"weight": 0.5}} for which in order]
    with pytest.raises(CheckpointError, match=f"tensor '{name}' is (I8|F32), but (I8|F32)"):
        plan_merge(MergeRecipe.model_validate({"merge_method": "linear", "models": models}))


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="weight"):
        terms(write_triple(tmp_path), [{"model": "sft"}])
