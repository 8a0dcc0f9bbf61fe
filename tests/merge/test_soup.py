"""`run:` in a merge recipe stands for the models along a run, with shares that follow a curve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mergetool.errors import CheckpointError, RecipeError
from mergetool.merge import merge_recipe, merge_tensors, plan_merge


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A result of `align` of 10 steps with models after 2, 4 and 8 beside it."""
    import torch
    from safetensors.torch import save_file

    out = tmp_path_factory.mktemp("run") / "out"
    torch.manual_seed(0)
    for place in ("along/step-2", "along/step-4", "along/step-8", "."):
        folder = out / place
        folder.mkdir(parents=True, exist_ok=True)
        config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1}
        (folder / "config.json").write_text(json.dumps(config))
        save_file({"w": torch.randn(50)}, folder / "model.safetensors", metadata={"format": "pt"})
    (out / "mergetool.json").write_text(json.dumps({"schema": 2, "kind": "align", "recipe": {}, "inputs": [], "steps": 10}))
    return out


def walk(run: Path) -> list:
    from safetensors.torch import load_file

    return [
        load_file(run / place / "model.safetensors")["w"] for place in ("along/step-2", "along/step-4", "along/step-8", ".")
    ]


def merged(entry: dict, **recipe: object):
    made = merge_recipe({"merge_method": "linear", "models": [entry], **recipe})
    return dict(merge_tensors(plan_merge(made)))["w"], made


def test_curve_ema_is_the_moving_average_of_the_models(run: Path) -> None:
    import torch

    mean, *later = walk(run)
    for theta in later:
        mean = mean.lerp(theta, 0.2)
    found, made = merged({"run": str(run), "curve": "ema", "coefficient": 0.2})
    torch.testing.assert_close(found, mean, rtol=0, atol=1e-6)
    assert [Path(entry.model).name for entry in made.models] == ["step-2", "step-4", "step-8", "out"]


def test_the_mean_is_the_curve_of_no_name_and_steps_choose(run: Path) -> None:
    import torch

    found, _ = merged({"run": str(run), "steps": [4, 10]})
    torch.testing.assert_close(found, (walk(run)[1] + walk(run)[3]) / 2)


def test_a_soups_weight_is_that_of_all_its_models(run: Path) -> None:
    import torch

    base = run / "along/step-2"
    made = {"merge_method": "task_arithmetic", "base_model": str(base)}
    found, _ = merged({"run": str(run), "curve": "cosine", "parameters": {"weight": 0.3}}, **made)
    soup, _ = merged({"run": str(run), "curve": "cosine"})
    torch.testing.assert_close(found, walk(run)[0] + 0.3 * (soup - walk(run)[0]), rtol=0, atol=1e-6)


def test_a_trainers_own_directory_is_a_run_too(run: Path, tmp_path: Path) -> None:
    import shutil

    for step, name in ((2, "checkpoint-100"), (8, "checkpoint-20")):
        shutil.copytree(run / f"along/step-{step}", tmp_path / name)
    made = merge_recipe({"merge_method": "linear", "models": [{"run": "."}]}, tmp_path)
    assert [Path(entry.model).name for entry in made.models] == ["checkpoint-20", "checkpoint-100"]


def test_what_cannot_be_is_one_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no model of step 5; there are 2, 4, 8, 10"):
        merged({"run": str(run), "steps": [5]})
    with pytest.raises(CheckpointError, match="no models along a run"):
        merged({"run": str(tmp_path)})
    with pytest.raises(RecipeError, match="curv"):
        merged({"run": str(run), "curv": "ema"})
