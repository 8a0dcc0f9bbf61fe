"""The same recipe through mergekit itself: every deterministic method agrees to 1e-6 relative in fp32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mergetool.merge import load_merge_recipe, merge_tensors, plan_merge
from mergetool.merge.mergekit import MERGEKIT_METHODS
from mergetool.methods import METHODS
from tests.helpers import write_triple

pytestmark = pytest.mark.slow

RECIPES = {
    "linear": {"merge_method": "linear", "weights": (1.0, 0.3)},
    "linear without normalising": {"merge_method": "linear", "weights": (0.9, 0.3), "parameters": {"normalize": False}},
    "slerp": {"merge_method": "slerp", "parameters": {"t": [{"filter": "self_attn", "value": [0, 0.5, 1]},
                                                           {"filter": "mlp", "value": [1, 0.5, 0.2]}, {"value": 0.5}]}},
    "task_arithmetic": {"merge_method": "task_arithmetic", "weights": (0.4, 0.8), "parameters": {"lambda": 0.7}},
    "task_arithmetic, normalised":
        {"merge_method": "task_arithmetic", "weights": (0.4, 0.8), "parameters": {"normalize": True}},
    "ties": {"merge_method": "ties", "weights": (0.4, [0, 0.3, 1.0]), "parameters": {"density": [0.9, 0.4], "normalize": True}},
    "ties, rescaled": {"merge_method": "ties", "weights": (0.5, 0.5),
                       "parameters": {"density": 0.5, "normalize": False, "rescale": True, "int8_mask": True}},
    "breadcrumbs": {"merge_method": "breadcrumbs", "weights": (0.6, 0.9), "parameters": {"density": 0.6, "gamma": 0.02}},
    "breadcrumbs, rescaled": {"merge_method": "breadcrumbs_ties", "weights": (0.6, 0.9),
                              "parameters": {"density": [0.3, 0.99], "gamma": 0.1, "rescale": True}},
    "ties with filters": {"merge_method": "ties", "weights": ([{"filter": "mlp", "value": 0.5}, {"value": 0}], 1.0),
                          "parameters": {"density": 0.33}},
}  # fmt: skip


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_triple(tmp_path_factory.mktemp("parity"))


def as_yaml(triple: dict[str, Path], spec: dict) -> str:
    if spec["merge_method"] == "slerp":
        models = [{"model": str(triple["sft"])}, {"model": str(triple["rlhf"])}]
        base = triple["sft"]
    else:
        pairs = zip(("sft", "rlhf"), spec["weights"], strict=True)
        models = [{"model": str(triple[m]), "parameters": {"weight": w}} for m, w in pairs]
        base = triple["base"]
    recipe = {"merge_method": spec["merge_method"], "models": models, "dtype": "float32"}
    if spec["merge_method"] != "linear":
        recipe["base_model"] = str(base)
    if "parameters" in spec:
        recipe["parameters"] = spec["parameters"]
    return yaml.safe_dump(recipe)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_gives_what_mergekit_gives(triple: dict[str, Path], tmp_path: Path, name: str) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    text = as_yaml(triple, RECIPES[name])
    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    run_merge(config, str(tmp_path / "theirs"), MergeOptions(write_model_card=False, copy_tokenizer=False))
    theirs = {n: t for part in (tmp_path / "theirs").glob("*.safetensors") for n, t in load_file(part).items()}
    (tmp_path / "recipe.yaml").write_text(text)
    ours = dict(merge_tensors(plan_merge(load_merge_recipe(tmp_path / "recipe.yaml"), "native")))
    theirs.pop("lm_head.weight", None)  # mergekit may write a tied head once more
    assert ours.keys() == theirs.keys()
    for tensor, value in ours.items():
        scale = float(theirs[tensor].abs().max())
        torch.testing.assert_close(value, theirs[tensor], rtol=1e-6, atol=1e-6 * scale, msg=lambda m, t=tensor: f"{t}: {m}")


def test_the_names_handed_to_mergekit_are_those_that_it_registers() -> None:
    from mergekit.merge_methods.registry import registered_methods

    theirs = {m.spec.name for m in registered_methods()}
    assert theirs - set(METHODS) == MERGEKIT_METHODS
    assert set(METHODS) <= theirs
