"""Theorem 3 through the command line, on the embedded triple: a run whose only merge is its last step is the offline recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from mergetool.cli.main import app

pytestmark = pytest.mark.slow
ALPHA, SEED = 0.25, 3


def run(folder: Path, command: str, name: str, recipe: dict) -> dict[str, torch.Tensor]:
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    done = CliRunner().invoke(app, [command, str(folder / f"{name}.yaml"), str(folder / name)])
    assert done.exit_code == 0, done.output
    return load_file(folder / name / "model.safetensors")


def aligned(**merging) -> dict:
    return {
        "base_model": "lab:base",
        "sft_model": "lab:sft",
        "algorithm": "dpo",
        "data": {"train": "lab:preferences_train", "limit": 24, "max_length": 64},
        "merging": merging,
        "training": {"max_steps": 5, "per_device_train_batch_size": 4, "learning_rate": 2e-4, "use_cpu": True, "seed": 0},
        "out_dtype": "float32",  # bf16 would round the two at different places
    }


@pytest.fixture(scope="module")
def rlhf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("partner")
    run(folder, "align", "rlhf", aligned(method="adamw"))
    return folder / "rlhf"


@pytest.mark.parametrize(("online", "offline"), [("ondare", "dare_linear"), ("onties", "ties"), ("onlinear", "linear")])
def test_align_with_k_equal_t_gives_what_merge_gives(rlhf: Path, tmp_path: Path, online: str, offline: str) -> None:
    kept = {} if online == "onlinear" else {"density": 0.5}
    trained = run(
        tmp_path, "align", "online", aligned(method=online, alpha=ALPHA, every="total", rounding="nearest", seed=SEED, **kept)
    )
    models = [
        {"model": str(rlhf), "relative_to": "lab:sft", "parameters": {"weight": 1 - ALPHA, **kept}},
        {"model": "lab:sft", "relative_to": "lab:base", "parameters": {"weight": ALPHA, **kept}},
    ]
    recipe = {"merge_method": offline, "base_model": "lab:sft", "models": models, "out_dtype": "float32", "seed": SEED}
    if online == "onlinear":
        recipe.pop("base_model")
        for entry in models:
            del entry["relative_to"]
    if online == "onties":
        recipe["parameters"] = {"normalize": False}
    merged = run(tmp_path, "merge", "offline", recipe)
    assert trained.keys() == merged.keys()
    moved = 0.0
    start = load_file(Path(__file__).parents[2] / "mergetool" / "lab" / "triple" / "sft" / "model.safetensors")
    for name, tensor in trained.items():
        assert tensor.dtype == torch.float32
        gap = (tensor - merged[name]).abs().max()
        assert gap <= 2 * 2.0**-23 * merged[name].abs().max(), name  # two roundings of fp32
        moved = max(moved, float((tensor - start[name].float()).abs().max()))
    assert moved > 1e-4  # equal, and not because nothing happened
