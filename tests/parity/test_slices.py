"""Stacked layers through mergekit itself: every tensor agrees to 1e-6 of its largest entry in fp32, and so do the depths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mergetool.merge import load_merge_recipe, merge_to_directory, plan_merge
from tests.helpers import random_weights, write_checkpoint

pytestmark = pytest.mark.slow


def source(model: str, first: int, last: int, **parameters: Any) -> dict[str, Any]:
    return {"model": model, "layer_range": [first, last], **({"parameters": parameters} if parameters else {})}


RECIPES: dict[str, dict[str, Any]] = {
    "deeper, of itself": {"merge_method": "passthrough", "slices": [
        {"sources": [source("a", 0, 3)]}, {"sources": [source("a", 1, 4)]}, {"sources": [source("a", 2, 4)]}]},
    "shallower": {"merge_method": "passthrough", "slices": [
        {"sources": [source("a", 0, 1)]}, {"sources": [source("a", 3, 4)]}]},
    "new layers that do nothing": {"merge_method": "passthrough", "slices": [
        {"sources": [source("a", 0, 4)]},
        {"sources": [source("a", 3, 4, scale=[{"filter": "o_proj", "value": 0.0}, {"filter": "down_proj", "value": 0.0},
                                              {"value": 1.0}])]}]},
    "of models of other depths": {"merge_method": "passthrough", "slices": [
        {"sources": [source("deep", 3, 6)]}, {"sources": [source("a", 1, 3)]}]},
    "other methods, and words of every level": {
        "merge_method": "ties", "base_model": "base", "parameters": {"density": 0.6, "weight": 0.3},
        "slices": [
            {"sources": [source("base", 0, 2), source("a", 0, 2, weight=[0.2, 0.9]), source("b", 1, 3)],
             "parameters": {"density": [{"filter": "mlp", "value": 0.4}]}},
            {"sources": [source("base", 2, 4), source("b", 2, 4)], "parameters": {"normalize": False}}]},
    "filters name layers of the input, or of the result": {
        "merge_method": "task_arithmetic", "base_model": "base", "parameters": {"lambda": [
            {"filter": "layers.3.", "value": 0.1}, {"value": 1.0}]},
        "slices": [
            {"sources": [source("base", 0, 2), source("a", 0, 2, weight=0.5)]},
            {"sources": [source("base", 0, 2),
                         source("b", 2, 4, weight=[{"filter": "layers.3.", "value": 0.2}, {"value": 1.0}])]},
        ]},
    "slerp of layers": {"merge_method": "slerp", "base_model": "a", "parameters": {"t": [0.1, 0.9]}, "slices": [
        {"sources": [source("a", 0, 3), source("b", 0, 3)]}, {"sources": [source("a", 2, 4), source("b", 1, 3)]}]},
    "a module of slices": {"merge_method": "linear", "modules": {"default": {
        "parameters": {"weight": 0.7},
        "slices": [{"sources": [source("a", 0, 2), source("b", 2, 4, weight=0.1)]}, {"sources": [source("b", 0, 1)]}]}}},
    "a module of models": {"merge_method": "linear", "parameters": {"weight": 0.4}, "modules": {"default": {
        "models": [{"model": "a"}, {"model": "b", "parameters": {"weight": [0.1, 1.0]}}]}}},
    "karcher, whose base takes no part": {"merge_method": "karcher", "base_model": "base", "slices": [
        {"sources": [source("a", 0, 2), source("b", 0, 2)]}, {"sources": [source("b", 2, 4), source("a", 0, 2)]}]},
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("slices")
    config = {"num_hidden_layers": 4, "tie_word_embeddings": False}
    base = random_weights(0, **config)
    write_checkpoint(root / "base", base, **config)
    for i, name in enumerate("ab", 1):
        write_checkpoint(root / name, random_weights(i, near=base, **config), **config)
    deep = {**config, "num_hidden_layers": 6}
    write_checkpoint(root / "deep", random_weights(5, **deep), **deep)
    return root


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_stacked_layers_are_mergekits(models: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    (models / "recipe.yaml").write_text(yaml.safe_dump({**RECIPES[name], "dtype": "float32"}))
    plan = plan_merge(load_merge_recipe(models / "recipe.yaml"), "native")
    merge_to_directory(plan, tmp_path / "ours")
    monkeypatch.chdir(models)  # where mergekit looks for its models
    config = MergeConfiguration.model_validate({**RECIPES[name], "dtype": "float32"})
    run_merge(config, str(tmp_path / "theirs"), MergeOptions(write_model_card=False, copy_tokenizer=False))
    ours, theirs = (load_file(tmp_path / side / "model.safetensors") for side in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    for tensor, value in ours.items():
        scale = float(theirs[tensor].abs().max())
        torch.testing.assert_close(value, theirs[tensor], rtol=1e-6, atol=1e-6 * scale, msg=lambda m, t=tensor: f"{t}: {m}")
    depths = [json.loads((tmp_path / side / "config.json").read_text())["num_hidden_layers"] for side in ("ours", "theirs")]
    assert depths[0] == depths[1] == 1 + max(int(n.split(".")[2]) for n in ours if ".layers." in n)
