"""A header is read as the safetensors library writes it, and needs two reads and no weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergetool.checkpoint.header import BY_TORCH_NAME, DTYPES, parse_header, read_header
from mergetool.errors import CheckpointError


def test_offsets_shapes_and_dtypes_are_those_of_the_library(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6, dtype=torch.bfloat16).view(2, 3), "b": torch.tensor(True), "c": torch.zeros(0, 4)}
    save_file(tensors, tmp_path / "x.safetensors")
    found, (size, digest) = read_header(tmp_path / "x.safetensors")
    raw = (tmp_path / "x.safetensors").read_bytes()
    assert size == len(raw)
    assert len(digest) == 64
    for name, tensor in load_file(tmp_path / "x.safetensors").items():
        info = found[name]
        assert (info.shape, info.dtype, info.numel) == (tuple(tensor.shape), tensor.dtype, tensor.numel())
        assert raw[info.offset : info.offset + info.nbytes] == tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def test_no_byte_of_weights_is_read(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1000)}, tmp_path / "x.safetensors")
    raw, asked = (tmp_path / "x.safetensors").read_bytes(), []

    def read(start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return raw[start:stop]

    parse_header(tmp_path / "x.safetensors", len(raw), read, "x")
    assert len(asked) == 2
    assert max(stop for _, stop in asked) == len(raw) - 4000


def test_every_dtype_has_torchs_name_and_size() -> None:
    for name, (torch_name, size, floating) in DTYPES.items():
        dtype = getattr(torch, torch_name)
        assert dtype.itemsize == size, name
        assert dtype.is_floating_point == floating, name
        assert BY_TORCH_NAME[torch_name] == name


def test_a_missing_file_is_a_missing_shard(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such weight file; fetch the checkpoint again: a shard is missing"):
        read_header(tmp_path / "x.safetensors")
