"""One safetensors header: what a weight file says of its tensors, and whether that can be true.

The header is parsed here and not by the safetensors library, because everything a header can get wrong (offsets past
the end, overlaps, absurd sizes) has to become one line that names the file, before a byte of weights is touched.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergetool import reading
from mergetool.checkpoint.recognise import LFS_HINT, is_pointer
from mergetool.errors import CheckpointError

if TYPE_CHECKING:
    import torch

MAX_HEADER = 1 << 25  # bytes: some 200,000 tensors; the safetensors library itself reads three times as many
_MAX_DIMENSIONS = 16

# safetensors name -> (torch name, bytes an element, floating)
DTYPES: dict[str, tuple[str, int, bool]] = {
    "F64": ("float64", 8, True),
    "F32": ("float32", 4, True),
    "F16": ("float16", 2, True),
    "BF16": ("bfloat16", 2, True),
    "F8_E4M3": ("float8_e4m3fn", 1, True),
    "F8_E5M2": ("float8_e5m2", 1, True),
    "F8_E8M0": ("float8_e8m0fnu", 1, True),
    "I64": ("int64", 8, False),
    "I32": ("int32", 4, False),
    "I16": ("int16", 2, False),
    "I8": ("int8", 1, False),
    "U8": ("uint8", 1, False),
    "BOOL": ("bool", 1, False),
    "U16": ("uint16", 2, False),
    "U32": ("uint32", 4, False),
    "U64": ("uint64", 8, False),
}
BY_TORCH_NAME = {torch_name: name for name, (torch_name, _, _) in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies. `offset` is in bytes from the start of `file`."""

    name: str
    dtype_name: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int

    @property
    def dtype(self) -> torch.dtype:
        """The stored dtype."""
        import torch

        return getattr(torch, DTYPES[self.dtype_name][0])

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return DTYPES[self.dtype_name][1]

    @property
    def numel(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def floating(self) -> bool:
        """True for the dtypes that merging arithmetic applies to."""
        return DTYPES[self.dtype_name][2]


Header = tuple[dict[str, TensorInfo], tuple[int, str]]
"""The tensors in the order of their offsets, and (file size in bytes, sha256 of the header bytes)."""


def read_header(path: Path, called: str | None = None) -> Header:
    """Parse and verify the header of a file on this disk.

    Args:
        path: the file.
        called: what messages call it; default: the path.

    Raises:
        CheckpointError: the file is missing, truncated, or its header contradicts itself or the file's size.
    """
    called = called or str(path)
    try:
        with reading.opened(path) as file:
            size = os.fstat(file.fileno()).st_size

            def read(start: int, stop: int) -> bytes:
                file.seek(start)
                return file.read(stop - start)

            return parse_header(path, size, read, called)
    except FileNotFoundError:
        raise CheckpointError(f"{called}: no such weight file", "fetch the checkpoint again: a shard is missing") from None
    except OSError as error:
        raise CheckpointError(f"{called}: cannot be read ({error.strerror})", "check its permissions") from None


def parse_header(file: Path, size: int, read: Callable[[int, int], bytes], called: str) -> Header:
    """Parse and verify a header, wherever its bytes come from.

    Args:
        file: where the tensors lie, or will lie.
        size: of the whole file, bytes.
        read: (start, stop) -> those bytes of the file.
        called: what messages call the file.

    Raises:
        CheckpointError: the file is truncated, or its header contradicts itself or the file's size.
    """
    again = "fetch the file again"
    prefix = read(0, min(8, size))
    if len(prefix) < 8:
        raise CheckpointError(f"{called}: is truncated: {size} bytes are not even a header", again)
    if is_pointer(prefix):
        raise CheckpointError(f"{called}: is a Git-LFS pointer and not the file itself", LFS_HINT)
    (length,) = struct.unpack("<Q", prefix)
    if length > MAX_HEADER or length > size - 8:
        raise CheckpointError(
            f"{called}: is truncated or damaged: its header claims {length:,} bytes, the file has {size:,}", again
        )
    raw = read(8, 8 + length)
    try:
        header = reading.parsed(raw, _unique)
    except ValueError as error:  # JSON and UTF-8 errors, and a repeated name
        raise CheckpointError(f"{called}: has a damaged header ({error})", again) from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{called}: has a damaged header (not a JSON object)", again)
    header.pop("__metadata__", None)
    data = 8 + length
    infos = [_tensor_info(file, name, entry, data, called) for name, entry in header.items()]
    infos.sort(key=lambda info: (info.offset, info.nbytes))
    end = data
    for info in infos:
        if info.offset != end:
            kind = "overlaps another tensor" if info.offset < end else "leaves a gap before it"
            raise CheckpointError(f"{called}: tensor '{info.name}' {kind}", again)
        end = info.offset + info.nbytes
    if end > size:
        raise CheckpointError(f"{called}: is truncated: tensors need {end:,} bytes, the file has {size:,}", again)
    if end < size:
        raise CheckpointError(f"{called}: has {size - end:,} bytes after its last tensor", again)
    return {info.name: info for info in infos}, (size, sha256(prefix + raw).hexdigest())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a name occurs twice")
    return mapping


def _tensor_info(file: Path, name: str, entry: Any, data: int, called: str) -> TensorInfo:
    again = "fetch the file again"
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise CheckpointError(
            f"{called}: has a damaged header: tensor '{name}' lacks dtype, shape or data_offsets", again
        ) from None
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(
            f"{called}: tensor '{name}' has dtype {dtype!r}, which is not supported", f"known: {', '.join(DTYPES)}"
        )
    numbers = [*shape, begin, end] if isinstance(shape, list) and len(shape) <= _MAX_DIMENSIONS else [None]
    if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 62 for n in numbers) or begin > end:
        raise CheckpointError(f"{called}: has a damaged header: tensor '{name}' has an impossible shape or offsets", again)
    expected = DTYPES[dtype][1]
    for n in shape:
        expected *= n
    if expected != end - begin:
        raise CheckpointError(
            f"{called}: has a damaged header: tensor '{name}' ({dtype} {shape}) needs {expected:,} bytes, has {end - begin:,}",
            again,
        )
    return TensorInfo(name, dtype, tuple(shape), file, data + begin, end - begin)
