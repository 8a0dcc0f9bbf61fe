"""mergekit's six example recipes, on small stand-ins for their models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mergetool.merge import load_merge_recipe, merge_to_directory, plan_merge
from tests.helpers import random_weights, write_checkpoint

pytestmark = pytest.mark.slow

SLERP = {
    "merge_method": "slerp",
    "base_model": "a",
    "dtype": "float16",
    "parameters": {
        "t": [
            {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
            {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
            {"value": 0.5},
        ]
    },
}
EXAMPLES = {
    "linear": {"merge_method": "linear", "dtype": "float16", "models": [
        {"model": "a", "parameters": {"weight": 1.0}}, {"model": "b", "parameters": {"weight": 0.3}},
        {"model": "c", "parameters": {"weight": 0.5}}]},
    "ties": {"merge_method": "ties", "base_model": "base", "dtype": "float16",
        "parameters": {"normalize": True, "int8_mask": True}, "models": [
            {"model": "a", "parameters": {"density": [1, 0.7, 0.1], "weight": 1.0}},
            {"model": "b", "parameters": {"density": 0.5, "weight": [0, 0.3, 0.7, 1]}},
            {"model": "c", "parameters": {"density": 0.33, "weight": [{"filter": "mlp", "value": 0.5}, {"value": 0}]}}]},
    "bio-merge": {"merge_method": "ties", "base_model": "base", "dtype": "float16",
        "parameters": {"normalize": False, "int8_mask": True}, "models": [
            {"model": "a", "parameters": {"density": 0.5, "weight": 0.5}},
            {"model": "b", "parameters": {"density": 0.5, "weight": 0.5}}]},
    "gradient-slerp in slices": {**SLERP, "slices": [{"sources": [
        {"model": "a", "layer_range": [0, 4]}, {"model": "b", "layer_range": [0, 4]}]}]},
    "gradient-slerp in models": {**SLERP, "models": [{"model": "a"}, {"model": "b"}]},
    "passthrough, more layers": {"merge_method": "passthrough", "dtype": "float16", "slices": [
        {"sources": [{"model": "a", "layer_range": [0, 3]}]}, {"sources": [{"model": "b", "layer_range": [1, 4]}]}]},
    "arcee_fusion": {"merge_method": "arcee_fusion", "base_model": "a", "dtype": "bfloat16",
        "models": [{"model": "a"}, {"model": "b"}]},
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("examples")
    config = {"num_hidden_layers": 4, "tie_word_embeddings": False}
    base = random_weights(0, **config)
    write_checkpoint(root / "base", base, **config)
    for i, name in enumerate("abc", 1):
        write_checkpoint(root / name, random_weights(i, near=base, **config), **config)
    return root


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_of_mergekit_runs_unchanged_and_agrees(models: Path, tmp_path: Path, name: str) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    recipe = EXAMPLES[name]
    (models / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    loaded = load_merge_recipe(models / "recipe.yaml")
    plan = plan_merge(loaded)
    assert plan.engine == "native"
    merge_to_directory(plan, tmp_path / "ours")
    # in fp32, so that what is compared is the method and not mergekit's half-precision arithmetic
    wide = {**loaded.to_dict(), "dtype": "float32", "out_dtype": recipe["dtype"]}
    config = MergeConfiguration.model_validate(wide)
    run_merge(config, str(tmp_path / "theirs"), MergeOptions(write_model_card=False, copy_tokenizer=False))
    ours, theirs = (
        {n: t for part in (tmp_path / side).glob("*.safetensors") for n, t in load_file(part).items()}
        for side in ("ours", "theirs")
    )
    assert ours.keys() == theirs.keys()
    for tensor, value in ours.items():
        assert value.dtype == theirs[tensor].dtype
        # both round an fp32 result to half precision: at most one unit in the last place apart, and rarely that
        difference = (value.float() - theirs[tensor].float()).abs()
        ulp = torch.finfo(value.dtype).eps * theirs[tensor].float().abs().clamp_min(1e-3)
        assert bool((difference <= ulp).all()), tensor
        assert float((difference > 0).float().mean()) < 0.002, tensor
