"""What goes to mergekit is a recipe that it understands, run as a program of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mergetool.errors import RecipeError
from mergetool.merge import MergeRecipe, load_merge_recipe, merge_to_directory, plan_merge
from mergetool.merge.mergekit import command, run
from tests.helpers import write_triple


def test_the_command_line_names_shards_and_device(tmp_path: Path) -> None:
    words = command(tmp_path / "r.yaml", tmp_path / "out", device="cpu", shard_bytes=123, adapters=tmp_path)
    assert words[0] == sys.executable
    assert words[words.index("--out-shard-size") + 1] == "123"
    assert "--cuda" not in words
    assert "--cuda" in command(tmp_path / "r.yaml", tmp_path / "out", device="cuda:0", shard_bytes=123, adapters=tmp_path)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"models": [{"model": "m", "relative_to": "b"}]}, r"models\[0\].relative_to"),
        (
            {"models": [], "slices": [{"sources": [{"model": "m", "relative_to": "b", "layer_range": [0, 1]}]}]},
            r"slices\[0\].sources\[0\].relative_to",
        ),
        ({"parameters": {"scope": "model"}}, "parameters.scope"),
        ({"parameters": {"rescale": "unbiased"}}, "parameters.rescale"),
    ],
)
def test_keys_that_only_we_know_are_refused_before_it_runs(tmp_path: Path, changes: dict, key: str) -> None:
    recipe = MergeRecipe(**{"merge_method": "sce", "models": [{"model": "m"}], "base_model": "b", **changes})
    with pytest.raises(RecipeError, match=f"{key}.* is not known to mergekit"):
        run(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def write_adapter(directory: Path) -> None:
    directory.mkdir()
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 3, "target_modules": ["q_proj"]}
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    at = "base_model.model.model.layers.1.self_attn.q_proj"
    rng = torch.Generator().manual_seed(0)
    parts = {f"{at}.lora_A.weight": torch.randn(2, 32, generator=rng), f"{at}.lora_B.weight": torch.randn(32, 2, generator=rng)}
    save_file(parts, directory / "adapter_model.safetensors")


@pytest.mark.slow
def test_adapters_relative_paths_and_a_working_directory_full_of_traps_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_triple(tmp_path)
    write_adapter(tmp_path / "adapter")
    models = [{"model": "sft+adapter"}, {"model": "rlhf"}]
    recipe = {
        "merge_method": "linear", "dtype": "float32", "parameters": {"weight": 0.5},
        "modules": {"default": {"models": models}}, "tokenizer": {"source": "./rlhf"},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "tqdm.py").write_text("raise SystemExit('a file of the working directory was imported')")
    monkeypatch.chdir(tmp_path / "here")
    loaded = load_merge_recipe("../recipe.yaml")
    merge_to_directory(plan_merge(loaded, "mergekit"), "theirs")
    merge_to_directory(plan_merge(loaded, "native"), "ours")
    assert sorted(p.name for p in Path().iterdir()) == ["ours", "theirs", "tqdm.py"]
    ours, theirs = (load_file(Path(side) / "model.safetensors") for side in ("ours", "theirs"))
    assert not list(Path("theirs").glob(".mergetool*"))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-6, atol=1e-7)


def test_it_ends_with_the_program_that_started_it(tmp_path: Path) -> None:
    words = command(tmp_path / "r.yaml", tmp_path / "out", device="cpu", shard_bytes=1, adapters=tmp_path)
    program = words[words.index("-c") + 1].replace('"mergekit.scripts.run_yaml"', '"sleeper"')
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(60)\n")
    end, held = os.pipe()
    child = subprocess.Popen([sys.executable, "-P", "-c", program], stdin=end, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    os.close(end)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(1)
    os.close(held)  # as when the parent is killed
    assert child.wait(10) == 1
