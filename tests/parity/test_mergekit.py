"""The same recipe through mergekit itself: every deterministic method agrees to 1e-6 relative in fp32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mergetool.merge import load_merge_recipe, merge_tensors, plan_merge
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
    "nuslerp": {"merge_method": "nuslerp", "weights": (0.3, 0.9)},
    "nuslerp by row": {"merge_method": "nuslerp", "weights": (0.3, [0.2, 0.9]), "parameters": {"nuslerp_flatten": False}},
    "nuslerp by column": {"merge_method": "nuslerp", "weights": (0.3, 0.9),
                          "parameters": {"nuslerp_flatten": False, "nuslerp_row_wise": True}},
    "nuslerp of models": {"merge_method": "nuslerp", "weights": (0.3, 0.9), "base": None},
    "nuslerp of models by row": {"merge_method": "nuslerp", "weights": (0.3, 0.9), "base": None,
                                 "parameters": {"nuslerp_flatten": False}},
    "multislerp": {"merge_method": "multislerp", "weights": (0.3, 0.9)},
    "multislerp of models": {"merge_method": "multislerp", "weights": (0.3, 0.9, 0.5), "base": None},
    "multislerp, weights as they are": {"merge_method": "multislerp", "weights": (0.3, 0.9),
                                        "parameters": {"normalize_weights": False}},
    "karcher": {"merge_method": "karcher", "weights": (None, None, None), "base": None},
    "karcher with a base": {"merge_method": "karcher", "weights": (None, None), "parameters": {"max_iter": 3, "tol": 1e-4}},
    "model_stock": {"merge_method": "model_stock", "weights": (None, None)},
    "model_stock by filter": {"merge_method": "model_stock", "weights": (None, None), "parameters": {"filter_wise": True}},
    "sce": {"merge_method": "sce", "weights": (None, None)},
    "sce, selected": {"merge_method": "sce", "weights": (None, None), "parameters": {"select_topk": [0.1, 0.7]}},
    "ram": {"merge_method": "ram", "weights": (None, None), "parameters": {"epsilon": 0.01}},
    "ramplus_tl": {"merge_method": "ramplus_tl", "weights": (None, None),
                   "parameters": {"epsilon": 0.01, "r": 0.4, "alpha": [0.1, 2.0]}},
    "nearswap": {"merge_method": "nearswap", "parameters": {"t": [0.001, 0.02]}},
    "nearswap, hardly": {"merge_method": "nearswap", "parameters": {"t": 1e-7}},
    "arcee_fusion": {"merge_method": "arcee_fusion"},
    "passthrough": {"merge_method": "passthrough", "weights": (None,), "base": None,
                    "parameters": {"scale": [{"filter": "o_proj", "value": 0.0}, {"filter": "mlp", "value": [0.5, 1.0]}]}},
}  # fmt: skip


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_triple(tmp_path_factory.mktemp("parity"))


def as_yaml(triple: dict[str, Path], spec: dict) -> str:
    if "weights" not in spec:  # of two models, one of them the base
        models = [{"model": str(triple[m])} for m in ("sft", "rlhf")]
        base = triple["sft"]
    else:
        pairs = zip(("sft", "rlhf", "base"), spec["weights"], strict=False)
        models = [{"model": str(triple[m]), **({} if w is None else {"parameters": {"weight": w}})} for m, w in pairs]
        base = triple[spec.get("base") or "base"]
    recipe = {"merge_method": spec["merge_method"], "models": models, "dtype": "float32"}
    if spec["merge_method"] != "linear" and spec.get("base", "base"):
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


def test_every_method_that_mergekit_registers_is_in_the_table_and_every_deterministic_one_is_compared() -> None:
    from mergekit.merge_methods.registry import registered_methods

    theirs = {m.spec.name for m in registered_methods()}
    assert theirs <= set(METHODS)
    compared = {spec["merge_method"] for spec in RECIPES.values()}
    assert {name for name in theirs if METHODS[name].deterministic} <= compared
