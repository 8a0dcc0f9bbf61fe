"""Blocks are views of the mapped file: what the library loads, at no memory, wherever a tensor lies."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch

from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.reader import Reader
from mergetool.errors import CheckpointError
from tests.helpers import random_weights, write_checkpoint

NAME = "model.norm.weight"


def test_blocks_are_the_tensors_flat_elements(tmp_path: Path) -> None:
    weights = random_weights(0)
    with Reader(read_layout(write_checkpoint(tmp_path / "m", weights, shards=2))) as reader:
        for name, tensor in weights.items():
            assert torch.equal(reader.tensor(name), tensor)
            assert torch.equal(reader.block(name, 3, 9), tensor.reshape(-1)[3:9])


def test_what_is_read_can_be_watched(tmp_path: Path) -> None:
    reader, seen = Reader(read_layout(write_checkpoint(tmp_path / "m", random_weights(0)))), []
    reader.watch = lambda info, start, block: seen.append((info.name, start, block.numel()))
    reader.block(NAME, 4, 12)
    assert seen == [(NAME, 4, 8)]


def test_a_tensor_that_is_not_aligned_is_read(tmp_path: Path) -> None:
    place = write_checkpoint(tmp_path / "m", random_weights(0))
    values = torch.arange(5, dtype=torch.float32)
    header = {
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        NAME: {"dtype": "F32", "shape": [5], "data_offsets": [1, 21]},
    }
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    (place / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" + values.numpy().tobytes())
    assert torch.equal(Reader(read_layout(place)).tensor(NAME), values)


def test_what_is_not_there_or_has_shrunk_is_named(tmp_path: Path) -> None:
    place = write_checkpoint(tmp_path / "m", random_weights(0))
    reader = Reader(read_layout(place))
    with pytest.raises(CheckpointError, match="has no tensor 'x'"):
        reader.tensor("x")
    path = place / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="has changed its size"):
        reader.tensor(NAME)
