"""How tensors are laid out in weight files: which shard, at which byte, behind which header."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

from mergetool.checkpoint.header import DTYPES
from mergetool.checkpoint.layout import SINGLE


@dataclass(frozen=True, slots=True)
class OutTensor:
    """A tensor to be written: its name, safetensors dtype and shape."""

    name: str
    dtype_name: str
    shape: tuple[int, ...]
    numel: int

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.numel * DTYPES[self.dtype_name][1]


@dataclass(frozen=True, slots=True)
class Shard:
    """A weight file: its name, the bytes of its header, its tensors in the order of their bytes, its size in bytes."""

    file: str
    header: bytes
    tensors: tuple[OutTensor, ...]
    size: int

    @property
    def offsets(self) -> dict[str, int]:
        """Where each tensor begins, in bytes from the start of the file."""
        found, offset = {}, len(self.header)
        for tensor in self.tensors:
            found[tensor.name] = offset
            offset += tensor.nbytes
        return found


def lay_out(tensors: list[OutTensor], shard_bytes: int, single: str = SINGLE) -> list[Shard]:
    """Group tensors into shards in order, none above `shard_bytes` unless one tensor alone is; one shard alone is `single`."""
    groups: list[list[OutTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if groups[-1] and filled + tensor.nbytes > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += tensor.nbytes
    shards = []
    for i, group in enumerate(groups, 1):
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        # wide elements first, as the safetensors library does, so that every tensor is aligned
        group = sorted(group, key=lambda t: -DTYPES[t.dtype_name][1])
        for tensor in group:
            header[tensor.name] = {
                "dtype": tensor.dtype_name, "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.nbytes]
            }  # fmt: skip
            offset += tensor.nbytes
        raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        raw += b" " * (-len(raw) % 8)
        file = single if len(groups) == 1 else f"model-{i:05d}-of-{len(groups):05d}.safetensors"
        shards.append(Shard(file, struct.pack("<Q", len(raw)) + raw, tuple(group), 8 + len(raw) + offset))
    return shards


def index_of(shards: list[Shard]) -> dict[str, Any]:
    """The index file's content: the bytes of all tensors, and tensor -> file."""
    total = sum(t.nbytes for s in shards for t in s.tensors)
    return {"metadata": {"total_size": total}, "weight_map": {t.name: s.file for s in shards for t in s.tensors}}
