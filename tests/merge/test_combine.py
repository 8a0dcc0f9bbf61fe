"""Recipes that share a reading give what they give alone, whatever their neighbours need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mergetool.merge import MergeRecipe, merge_to_directories, merge_to_directory, plan_merge
from tests.helpers import random_weights, write_checkpoint


def test_a_neighbour_that_needs_whole_rows_changes_no_byte(tmp_path: Path) -> None:
    big = {"vocab_size": 9000, "hidden_size": 36}  # more than one block, in rows that do not divide one
    base = random_weights(0, **big)
    paths = {"base": write_checkpoint(tmp_path / "base", base, **big)}
    for i, name in enumerate(("sft", "rlhf"), 1):
        paths[name] = write_checkpoint(tmp_path / name, random_weights(i, near=base, **big), **big)

    def recipe(method: str, **parameters: Any) -> MergeRecipe:
        models = [{"model": str(paths[m]), "parameters": {"weight": 0.5}} for m in ("sft", "rlhf")]
        return MergeRecipe(merge_method=method, base_model=str(paths["base"]), models=models, parameters=parameters)

    recipes = [recipe("ties", density=0.4, rescale="l1"), recipe("della", density=0.5), recipe("dare_linear", density=0.3)]
    recipes.append(recipe("ties", density=0.4, rescale="l1", scope="model"))
    plans = [plan_merge(one) for one in recipes]
    merge_to_directories(plans, [tmp_path / f"all{i}" for i in range(len(plans))])
    for i, plan in enumerate(plans):
        merge_to_directory(plan, tmp_path / f"one{i}")
        files = [(tmp_path / f"{how}{i}" / "model.safetensors").read_bytes() for how in ("all", "one")]
        assert files[0] == files[1], recipes[i]


def test_options_are_read_for_each_tensor_and_model(tmp_path: Path) -> None:
    weights = random_weights(0)
    step = {name: torch.ones_like(w) for name, w in weights.items()}
    base = write_checkpoint(tmp_path / "base", weights)
    other = write_checkpoint(tmp_path / "other", {name: weights[name] + step[name] for name in weights})
    plan = plan_merge(
        MergeRecipe(
            merge_method="breadcrumbs", base_model=str(base), parameters={"density": [{"filter": "mlp", "value": 0.5}]},
            models=[{"model": str(other), "parameters": {"weight": 1, "gamma": [0.0, 0.2]}}],
        )
    )  # fmt: skip
    options = {tensor.name: tensor.terms[0].options for tensor in plan.tensors}
    assert options["model.layers.2.mlp.up_proj.weight"] == {"density": 0.5, "gamma": 0.2}
    assert options["model.layers.0.self_attn.q_proj.weight"] == {"density": 1.0, "gamma": 0.0}
    shared = plan.tensors[0].options
    assert shared == {"lambda": 1.0, "normalize": False, "int8_mask": None, "rescale": "none"}
