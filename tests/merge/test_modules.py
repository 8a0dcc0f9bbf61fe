"""Recipes in modules form: each part is merged of its own models, with its own parameters, natively."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from mergetool.errors import RecipeError
from mergetool.merge import load_merge_recipe, merge_tensors, merge_to_directory, plan_merge
from mergetool.merge.plan import Plan
from tests.architecture.families import shrunk

QWEN = "Qwen3VLForConditionalGeneration"


def weighted(place: Path, weight: Any, **more: Any) -> dict[str, Any]:
    return {"model": str(place), "parameters": {"weight": weight}, **more}


def planned(tmp_path: Path, recipe: Mapping[str, Any]) -> Plan:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(dict(recipe)))
    return plan_merge(load_merge_recipe(tmp_path / "r.yaml"), "native")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    root = tmp_path_factory.mktemp("parts")
    for seed, name in enumerate("abc"):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(shrunk(Qwen3VLConfig(), QWEN))
        for parameter in model.parameters():  # norms are alike in new models
            torch.nn.init.normal_(parameter, 1.0, 0.1)
        model.save_pretrained(root / name)
    return tuple(root / name for name in "abc")


def test_each_part_is_as_in_a_merge_of_its_own(three: tuple[Path, ...], tmp_path: Path) -> None:
    a, b, c = three
    text = [weighted(a, 0.3), weighted(b, [0.1, 0.9])]
    vision = [weighted(b, 1.5)]
    modules = {"text_decoder": {"models": text}, "visual": {"models": vision, "parameters": {"density": 0.5}}}
    head = {"merge_method": "ties", "base_model": str(c), "parameters": {"density": 0.8, "lambda": 0.9}, "dtype": "float32"}
    plan = planned(tmp_path, {**head, "modules": modules})
    found = dict(merge_tensors(plan))
    alone = [
        dict(
            merge_tensors(
                planned(tmp_path, {**head, "parameters": {**head["parameters"], "density": density}, "models": models})
            )
        )
        for models, density in ((text, 0.8), (vision, 0.5))
    ]
    assert list(found) == list(alone[0])
    for name, tensor in found.items():
        assert torch.equal(tensor, alone[".visual." in name][name]), name
    assert plan.entry("modules.visual.0") == f"modules.visual.models[0] {b}"


def test_modules_are_what_mergekit_makes_of_them_and_load(three: tuple[Path, ...], tmp_path: Path) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    a, b, c = three
    sources = [weighted(a, 0.2, layer_range=[0, 2]), weighted(b, [0.9, 0.4], layer_range=[0, 2])]
    modules = {
        "text_decoder": {"slices": [{"sources": [*sources, {"model": str(c), "layer_range": [0, 2]}]}]},
        "vision_tower": {"models": [{"model": str(c)}]},
        "multi_modal_projector": {"models": [weighted(a, 0.1)], "parameters": {"lambda": 0.5}},
    }
    recipe = {"merge_method": "task_arithmetic", "base_model": str(c), "modules": modules, "dtype": "float32"}
    assert merge_to_directory(planned(tmp_path, recipe), tmp_path / "ours")["engine"] == "native"
    config = MergeConfiguration.model_validate(recipe)
    run_merge(config, str(tmp_path / "theirs"), MergeOptions(write_model_card=False, copy_tokenizer=False))
    ours, theirs, base = (load_file(side / "model.safetensors") for side in (tmp_path / "ours", tmp_path / "theirs", c))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-6, atol=1e-6 * float(tensor.abs().max()), msg=name)
        assert torch.equal(ours[name], base[name]) == ("visual.blocks" in name or "visual.p" in name), name
    loaded: Any = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(loaded[1].values())


@pytest.mark.parametrize("method", ["ties", "dare_ties", "slerp", "sce", "model_stock"])
def test_a_part_of_the_base_alone_stays_as_it_is(three: tuple[Path, ...], tmp_path: Path, method: str) -> None:
    a, b, c = three
    others = [weighted(a, 0.5)] if method == "slerp" else [weighted(a, 0.5), weighted(b, 0.5)]
    modules = {
        "visual": {"models": [{"model": str(c)}]},
        "default": {"models": others, "parameters": {"t": 0.5, "density": 0.5}},
    }
    plan = planned(tmp_path, {"merge_method": method, "base_model": str(c), "modules": modules, "dtype": "bfloat16"})
    base = load_file(c / "model.safetensors")
    for name, tensor in merge_tensors(plan):
        assert torch.equal(tensor, base[name].bfloat16()) == (".visual." in name), name


def test_a_part_takes_no_base_where_the_method_needs_none(three: tuple[Path, ...], tmp_path: Path) -> None:
    a, b, _ = three
    modules = {"visual": {"models": [weighted(b, 1.0)]}, "default": {"models": [weighted(a, 1.0), weighted(b, 3.0)]}}
    found = dict(merge_tensors(planned(tmp_path, {"merge_method": "linear", "modules": modules})))
    one, other = (load_file(place / "model.safetensors") for place in (a, b))
    for name, tensor in found.items():
        want = other[name] if ".visual." in name else (one[name] + 3 * other[name]) / 4
        torch.testing.assert_close(tensor, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("slices", "says"),
    [
        ([[0, 1], [0, 2]], "are not stacked here; merge whole parts .* or run this recipe with --engine mergekit"),
        ([[0, 1]], "are not stacked here"),
    ],
)
def test_stacked_layers_of_one_part_are_refused(three: tuple[Path, ...], tmp_path: Path, slices: list, says: str) -> None:
    place = three[0]
    stacked = [{"sources": [weighted(place, 1.0, layer_range=layers)]} for layers in slices]
    modules = {"text_decoder": {"slices": stacked}, "default": {"models": [weighted(place, 1.0)]}}
    with pytest.raises(RecipeError, match=says):
        planned(tmp_path, {"merge_method": "linear", "modules": modules})


def test_a_module_of_several_checks_its_own_parameters(three: tuple[Path, ...], tmp_path: Path) -> None:
    a, b, _ = three
    modules = {
        "visual": {"models": [weighted(a, 1.0)], "parameters": {"desnity": 1}},
        "default": {"models": [weighted(a, 1.0)]},
    }
    with pytest.raises(RecipeError, match=r"no parameter 'desnity'; did you mean 'density'"):
        planned(tmp_path, {"merge_method": "ties", "base_model": str(b), "modules": modules})
