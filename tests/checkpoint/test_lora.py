"""``model+adapter`` reads as PEFT's own merge_and_unload would give it; other kinds are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergetool.checkpoint.open import open_reader
from mergetool.errors import CheckpointError
from mergetool.hub.references import open_layout
from mergetool.merge import MergeRecipe, merge_tensors, plan_merge
from tests.helpers import random_weights, write_checkpoint


def make_adapter(base: Path, out: Path, **settings: object) -> None:
    """A trained-looking adapter, saved by PEFT itself."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], **settings})
    model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            parameter.data.normal_(0, 0.1)
    model.save_pretrained(out)


def merged_by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "base", random_weights(0))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"alpha_pattern": {"layers.1.self_attn.q_proj": 20}, "rank_pattern": {"down_proj": 2}},
        {"target_modules": ["embed_tokens", "v_proj"]},
    ],
    ids=["plain", "rslora", "patterns", "embedding"],
)
def test_an_adapter_reads_as_peft_merges_it(tmp_path: Path, settings: dict) -> None:
    base = write_checkpoint(tmp_path / "base", random_weights(0, tie_word_embeddings=False), tie_word_embeddings=False)
    make_adapter(base, tmp_path / "adapter", **settings)
    expected = merged_by_peft(base, tmp_path / "adapter")
    layout = open_layout(f"{base}+{tmp_path / 'adapter'}")
    reader = open_reader(layout)
    changed = 0
    for name, info in layout.tensors.items():
        torch.testing.assert_close(reader.tensor(name), expected[name], rtol=1e-6, atol=1e-7)
        part = reader.block(name, 5, info.numel - 3)
        torch.testing.assert_close(part, reader.tensor(name).flatten()[5 : info.numel - 3], rtol=1e-6, atol=1e-7)
        changed += not torch.equal(expected[name], load_file(base / "model.safetensors")[name])
    assert changed >= 4


def test_modules_saved_whole_replace_the_models_own(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", random_weights(0, tie_word_embeddings=False), tie_word_embeddings=False)
    make_adapter(base, tmp_path / "adapter", modules_to_save=["lm_head"])
    expected = merged_by_peft(base, tmp_path / "adapter")
    reader = open_reader(open_layout(f"{base}+{tmp_path / 'adapter'}"))
    torch.testing.assert_close(reader.tensor("lm_head.weight"), expected["lm_head.weight"])


def test_a_merge_takes_a_model_with_an_adapter(base: Path, tmp_path: Path) -> None:
    make_adapter(base, tmp_path / "adapter")
    expected = merged_by_peft(base, tmp_path / "adapter")
    models = [{"model": f"{base}+{tmp_path / 'adapter'}", "parameters": {"weight": 0.5}}]
    recipe = MergeRecipe(merge_method="task_arithmetic", base_model=str(base), models=models)
    weights = load_file(base / "model.safetensors")
    for name, value in merge_tensors(plan_merge(recipe, "native")):
        torch.testing.assert_close(value, (weights[name] + expected[name]) / 2, rtol=1e-6, atol=1e-7)
    # a sweep plans the same inputs more than once and reads them once
    assert plan_merge(recipe, "native").sources == plan_merge(recipe, "native").sources


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "VERA"}, "of kind VERA"),
        ({"use_dora": True}, "has no magnitude"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
    ],
)
def test_other_kinds_are_refused_by_name(base: Path, tmp_path: Path, change: dict, says: str) -> None:
    make_adapter(base, tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=says):
        open_layout(f"{base}+{tmp_path / 'adapter'}")


def test_an_adapter_of_another_model_is_refused(base: Path, tmp_path: Path) -> None:
    make_adapter(base, tmp_path / "adapter")
    wide = write_checkpoint(tmp_path / "wide", random_weights(0, hidden_size=64), hidden_size=64)
    with pytest.raises(CheckpointError, match=r"of shape \[.*\], but it is \["):
        open_layout(f"{wide}+{tmp_path / 'adapter'}")
    shallow = write_checkpoint(tmp_path / "shallow", random_weights(0, num_hidden_layers=1), num_hidden_layers=1)
    with pytest.raises(CheckpointError, match="lacks"):
        open_layout(f"{shallow}+{tmp_path / 'adapter'}")
    with pytest.raises(CheckpointError, match="no such adapter"):
        open_layout(f"{base}+{tmp_path / 'nothing'}")


@pytest.mark.parametrize("shards", [1, 2])
def test_pickled_weights_are_mapped_and_read_without_running_code(tmp_path: Path, shards: int) -> None:
    weights = random_weights(0)
    directory = write_checkpoint(tmp_path / "m", weights)
    (directory / "model.safetensors").unlink()
    state = {n: w.bfloat16() for n, w in weights.items()} | {"lm_head.weight": weights["model.embed_tokens.weight"].bfloat16()}
    if shards == 1:
        torch.save(state, directory / "pytorch_model.bin")
    else:
        names, weight_map = list(state), {}
        for i in range(shards):
            part = {n: state[n] for n in names[i::shards]}
            torch.save(part, directory / f"pytorch_model-{i}.bin")
            weight_map |= dict.fromkeys(part, f"pytorch_model-{i}.bin")
        (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    layout = open_layout(directory)
    assert layout.tensors.keys() == weights.keys()  # the tied head stands once
    reader = open_reader(layout)
    for name, weight in weights.items():
        assert torch.equal(reader.tensor(name), weight.bfloat16())
    models = [{"model": str(directory), "parameters": {"weight": 1.0}}]
    merged = dict(merge_tensors(plan_merge(MergeRecipe(merge_method="linear", models=models))))
    assert all(torch.equal(merged[n], w.bfloat16()) for n, w in weights.items())


class Evil:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("/tmp/evil-was-here"),))


def test_a_pickle_that_would_run_code_or_is_damaged_is_refused(tmp_path: Path) -> None:
    directory = write_checkpoint(tmp_path / "m", random_weights(0))
    (directory / "model.safetensors").unlink()
    torch.save({"w": torch.zeros(2), "evil": Evil()}, directory / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="more than tensors"):
        open_layout(directory)
    content = (directory / "pytorch_model.bin").read_bytes()
    (directory / "pytorch_model.bin").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="cannot be mapped"):
        open_layout(directory)
    torch.save({"w": torch.zeros(1).expand(1 << 40)}, directory / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="of a smaller file"):
        open_layout(directory)


def test_a_damaged_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    make_adapter(base, tmp_path / "adapter")
    file = tmp_path / "adapter/adapter_model.safetensors"
    tensors = load_file(file)
    name = next(n for n in tensors if "lora_A" in n)
    save_file({n: t for n, t in tensors.items() if n != name}, file)
    with pytest.raises(CheckpointError, match="lora_B alone"):
        open_layout(f"{base}+{tmp_path / 'adapter'}")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="truncated"):
        open_layout(f"{base}+{tmp_path / 'adapter'}")
