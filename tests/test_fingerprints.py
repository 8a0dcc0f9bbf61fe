"""A checkpoint's identity follows all that it computes with, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergetool.errors import CheckpointError
from mergetool.fingerprints import checkpoint_identity, data_identity, legacy_checkpoint_identity
from tests.helpers import random_weights, write_checkpoint


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model", random_weights(0), shards=2)


def zero_a_matrix(model: Path) -> None:
    path = next(model.glob("*.safetensors"))
    weights = load_file(path)
    weights[next(name for name in weights if weights[name].dim() == 2)].zero_()
    save_file(weights, path, metadata={"format": "pt"})


def other(name: str, **change: object):
    def edit(model: Path) -> None:
        path = model / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    return edit


CHANGES = {
    "a matrix": zero_a_matrix,
    "config": other("config.json", rms_norm_eps=0.5),
    "generation": other("generation_config.json", temperature=0.1),
    "template in the tokenizer": other("tokenizer_config.json", chat_template="{{ 1 }}"),
    "template": lambda model: (model / "chat_template.jinja").write_text("{{ 1 }}"),
    "one more template": lambda model: (
        (model / "additional_chat_templates").mkdir(),
        (model / "additional_chat_templates" / "rag.jinja").write_text("{{ 1 }}"),
    ),
    "tokenizer": lambda model: (model / "tokenizer.json").write_text((model / "tokenizer.json").read_text() + "\n"),
    "an adapter's settings": lambda model: (model / "adapter_config.json").write_text("{}"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_decides_what_a_model_computes_is_seen(model: Path, change) -> None:
    before = checkpoint_identity(model)
    change(model)
    assert checkpoint_identity(model) != before


def test_place_time_card_and_logs_do_not_matter(model: Path, tmp_path: Path) -> None:
    before = checkpoint_identity(model)
    shutil.copytree(model, tmp_path / "copy", copy_function=shutil.copyfile)
    for name in ("README.md", "mergetool.json", "metrics.jsonl", "training_args.bin"):
        (tmp_path / "copy" / name).write_text("{}")
    assert checkpoint_identity(tmp_path / "copy") == before


def test_a_model_with_an_adapter_is_known_by_both(model: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"lora_alpha": 8}')
    save_file({"a": torch.ones(2, 2)}, adapter / "adapter_model.safetensors")
    found = {checkpoint_identity(model), checkpoint_identity(Path(f"{model}+{adapter}"))}
    save_file({"a": torch.zeros(2, 2)}, adapter / "adapter_model.safetensors")
    found.add(checkpoint_identity(Path(f"{model}+{adapter}")))
    (adapter / "adapter_config.json").write_text('{"lora_alpha": 16}')
    found.add(checkpoint_identity(Path(f"{model}+{adapter}")))
    assert len(found) == 4


def test_a_directory_without_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such model directory"):
        checkpoint_identity(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        checkpoint_identity(tmp_path)


def test_a_missing_shard_says_which(model: Path) -> None:
    path = next(model.glob("*.safetensors"))
    path.unlink()
    with pytest.raises(CheckpointError, match=path.name):
        checkpoint_identity(model)


def test_the_keys_of_old_results_are_computed_as_they_were(tmp_path: Path) -> None:
    """The values are those of mergetool 0.1.0 before identity was content."""
    for name, count in (("a", 10), ("b", 300_000)):
        (tmp_path / f"{name}.safetensors").write_bytes(bytes(at * 7 % 251 for at in range(count)))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p"}\n')
    assert legacy_checkpoint_identity(tmp_path) == "b81eb82c744a931f"
    assert data_identity(tmp_path / "rows.jsonl") == "aa5167393d2232f9"
