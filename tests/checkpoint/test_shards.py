"""Weight files are laid out as the safetensors library would write them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.shards import OutTensor, index_of, lay_out

TENSORS = [OutTensor("b", "BF16", (3, 5), 15), OutTensor("a", "F32", (7,), 7), OutTensor("c", "U8", (3,), 3)]


def test_one_shard_has_the_bytes_of_the_library(tmp_path: Path) -> None:
    (shard,) = lay_out(TENSORS, 10**9)
    weights = {"b": torch.arange(15).view(3, 5).bfloat16(), "a": torch.arange(7.0), "c": torch.arange(3, dtype=torch.uint8)}
    raw = bytearray(shard.size)
    raw[: len(shard.header)] = shard.header
    for name, offset in shard.offsets.items():
        data = weights[name].contiguous().view(torch.uint8).numpy().tobytes()
        raw[offset : offset + len(data)] = data
    save_file(weights, tmp_path / "theirs", metadata={"format": "pt"})
    assert bytes(raw) == (tmp_path / "theirs").read_bytes()


def test_no_shard_is_larger_than_asked_unless_one_tensor_is() -> None:
    shards = lay_out(TENSORS, 31)
    assert [[t.name for t in shard.tensors] for shard in shards] == [["b"], ["a", "c"]]
    assert [len(shard.tensors) for shard in lay_out(TENSORS, 1)] == [1, 1, 1]


def test_index_and_shards_are_a_checkpoint(tmp_path: Path) -> None:
    import json

    shards = lay_out(TENSORS, 30)
    for shard in shards:
        (tmp_path / shard.file).write_bytes(shard.header.ljust(shard.size, b"\0"))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index_of(shards)))
    (tmp_path / "config.json").write_text("{}")
    layout = read_layout(tmp_path)
    assert {name: (t.dtype_name, t.shape) for name, t in layout.tensors.items()} == {
        t.name: (t.dtype_name, t.shape) for t in TENSORS
    }
    assert index_of(shards)["metadata"]["total_size"] == layout.nbytes
