"""From recipe to recipe: what was measured is the model that the merge makes."""

from __future__ import annotations

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mergetool.errors import MergetoolError
from mergetool.evaluate import Task, evaluate
from mergetool.merge import load_merge_recipe, merge_to_directory, plan_merge
from tests.ama.small import made
from tests.evaluate import tiny


def test_the_written_recipe_merges_to_the_model_that_was_measured(pair, tmp_path) -> None:
    (found,) = made(pair, tmp_path / "learned.yaml")
    merge_to_directory(plan_merge(load_merge_recipe(found.path)), tmp_path / "merged")
    rows = [{"prompt": f"q{at}", "completion": f" yes {at}"} for at in range(12)]
    score = evaluate(tmp_path / "merged", [Task("chosen", ("nll",), rows)])["chosen.nll"]["value"]
    assert score == pytest.approx(found.learned.nll, abs=1e-5)


def test_uniform_is_the_linear_merge_at_the_mean(pair, tmp_path) -> None:
    (found,) = made(pair)
    recipe = {
        "merge_method": "linear",
        "models": [
            {"model": str(pair / "sft"), "parameters": {"weight": 0.4}},
            {"model": str(pair / "rlhf"), "parameters": {"weight": 0.6}},
        ],
    }
    (tmp_path / "uniform.yaml").write_text(yaml.safe_dump(recipe))
    merge_to_directory(plan_merge(load_merge_recipe(tmp_path / "uniform.yaml")), tmp_path / "merged")
    rows = [{"prompt": f"q{at}", "completion": f" yes {at}"} for at in range(12)]
    score = evaluate(tmp_path / "merged", [Task("chosen", ("nll",), rows)])["chosen.nll"]["value"]
    assert score == pytest.approx(found.learned.uniform_nll, abs=1e-5)


def test_models_that_do_not_fit_are_found_before_anything_is_loaded(pair, tmp_path) -> None:
    tiny.llama(0, tied=False, layers=2).save_pretrained(tmp_path / "small")
    with pytest.raises(MergetoolError, match=r"small: lacks tensor 'model.layers.2.* of one architecture"):
        made(pair, rlhf_model=str(tmp_path / "small"))


def test_a_model_averaged_with_itself_is_that_model(pair, tmp_path) -> None:
    (found,) = made(pair, tmp_path / "same.yaml", rlhf_model="sft", training={"steps": 1})
    merge_to_directory(plan_merge(load_merge_recipe(found.path)), tmp_path / "merged")
    merged, sft = (load_file(place / "model.safetensors") for place in (tmp_path / "merged", pair / "sft"))
    assert all(torch.equal(merged[name], sft[name]) for name in sft)
