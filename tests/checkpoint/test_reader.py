"""Blocks are views of the mapped file: what the library loads, at no memory, wherever a tensor lies."""

from __future__ import annotations

import json
import resource
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


def test_what_is_not_aligned_takes_the_memory_of_the_blocks_that_are_read(tmp_path: Path) -> None:
    place = write_checkpoint(tmp_path / "m", random_weights(0))
    size, count = 1 << 20, 24
    header = {"odd": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    for at in range(count):
        begin = 1 + 4 * size * at
        header[f"t{at}"] = {"dtype": "F32", "shape": [size], "data_offsets": [begin, begin + 4 * size]}
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with (place / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + 1 + 4 * size * count)  # of nought
    with Reader(read_layout(place)) as reader:
        before = anonymous()
        for at in range(count):
            for start in range(0, size, 1 << 18):
                assert reader.block(f"t{at}", start, start + (1 << 18)).numel() == 1 << 18
        assert anonymous() - before < 3 * 4 * size  # of 96 MB


def anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def test_many_shards_take_few_descriptors(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    weights = random_weights(0)
    readers = [Reader(read_layout(write_checkpoint(tmp_path / f"m{at}", weights, shards=25))) for at in range(6)]
    open_now = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 60, hard))
    try:
        for name, tensor in weights.items():
            assert all(torch.equal(reader.tensor(name), tensor) for reader in readers)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
