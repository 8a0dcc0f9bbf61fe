"""The layout and the reader that a checkpoint needs are found by what it holds."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from mergetool.checkpoint.adapted_reader import AdaptedReader
from mergetool.checkpoint.adapter import ADAPTER, ADAPTER_CONFIG
from mergetool.checkpoint.open import layout_of, open_reader
from mergetool.checkpoint.place import Directory
from mergetool.checkpoint.reader import PickledReader, Reader
from tests.helpers import random_weights, write_checkpoint

Q = "model.layers.0.self_attn.q_proj"


def adapter(directory: Path) -> Directory:
    directory.mkdir()
    pair = {f"base_model.model.{Q}.lora_A.weight": torch.ones(2, 32), f"base_model.model.{Q}.lora_B.weight": torch.ones(32, 2)}
    save_file(pair, directory / ADAPTER)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 1, "target_modules": ["q_proj"]}
    (directory / ADAPTER_CONFIG).write_text(json.dumps(config))
    return Directory(directory)


def pickled(directory: Path, weights: dict[str, torch.Tensor]) -> Directory:
    write_checkpoint(directory, weights)
    (directory / "model.safetensors").unlink()
    torch.save(weights, directory / "pytorch_model.bin")
    return Directory(directory)


def test_each_format_has_its_reader_and_the_same_face(tmp_path: Path) -> None:
    weights = random_weights(0)
    plain = layout_of(Directory(write_checkpoint(tmp_path / "plain", weights)))
    bins = layout_of(pickled(tmp_path / "bin", weights))
    adapted = layout_of(Directory(tmp_path / "plain"), adapter(tmp_path / "lora"))
    assert type(open_reader(plain)) is Reader
    assert type(open_reader(bins)) is PickledReader
    assert type(open_reader(adapted)) is AdaptedReader
    name = f"{Q}.weight"
    assert torch.equal(open_reader(bins).tensor(name), open_reader(plain).tensor(name))
    torch.testing.assert_close(open_reader(adapted).tensor(name), weights[name] + 0.5 * torch.full((32, 32), 2.0))


def test_an_adapter_on_pickled_weights_reads_as_on_others(tmp_path: Path) -> None:
    weights = random_weights(0)
    adapted = layout_of(pickled(tmp_path / "bin", weights), adapter(tmp_path / "lora"))
    name = f"{Q}.weight"
    torch.testing.assert_close(open_reader(adapted).tensor(name), weights[name] + 0.5 * torch.full((32, 32), 2.0))
