"""What a checkpoint holds, from headers alone.

The safetensors header is parsed here and not by the safetensors library, because everything a header can get wrong
(offsets past the end, overlaps, absurd sizes, an index that points outside its directory) has to become one line
that names the file, before a byte of weights is touched.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergetool.errors import CheckpointError

if TYPE_CHECKING:
    import torch

    from mergetool.checkpoint.adapter import Adapter

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLED_INDEX, PICKLED = "pytorch_model.bin.index.json", "pytorch_model.bin"
MAX_HEADER = 100_000_000  # the limit of the safetensors library itself

# safetensors name -> (torch name, bytes an element, floating)
DTYPES: dict[str, tuple[str, int, bool]] = {
    "F64": ("float64", 8, True),
    "F32": ("float32", 4, True),
    "F16": ("float16", 2, True),
    "BF16": ("bfloat16", 2, True),
    "F8_E4M3": ("float8_e4m3fn", 1, True),
    "F8_E5M2": ("float8_e5m2", 1, True),
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
        return self.nbytes // self.itemsize

    @property
    def floating(self) -> bool:
        """True for the dtypes that merging arithmetic applies to."""
        return DTYPES[self.dtype_name][2]


@dataclass(frozen=True)
class Layout:
    """A checkpoint's tensors in file order, its configuration, and the identity of its headers.

    `headers` maps each weight file's name to (size in bytes, sha256 of its header).
    """

    directory: Path
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    headers: dict[str, tuple[int, str]] = field(default_factory=dict)
    adapter: Adapter | None = None

    @property
    def tied(self) -> bool:
        """True where the configuration ties the output embedding to the input embedding."""
        text = self.config.get("text_config")
        nested = text.get("tie_word_embeddings") if isinstance(text, dict) else None
        return bool(self.config.get("tie_word_embeddings", nested))

    @property
    def pickled(self) -> bool:
        """True where the weights are .bin files."""
        return any(name.endswith(".bin") for name in self.headers)

    @property
    def files(self) -> dict[Path, tuple[int, str]]:
        """Every weight file that is read, an adapter's too -> (size in bytes, sha256 of its header)."""
        found = {self.directory / name: identity for name, identity in self.headers.items()}
        if self.adapter is not None:
            found[self.adapter.directory / "adapter_model.safetensors"] = self.adapter.header
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of weights."""
        return sum(t.nbytes for t in self.tensors.values())


def read_layout(directory: str | Path) -> Layout:
    """Read a checkpoint directory's configuration and safetensors headers.

    Args:
        directory: holds config.json and model.safetensors, or an index and its shards.

    Raises:
        CheckpointError: a file is missing or damaged; the message names it and what to do.
    """
    directory = Path(directory)
    if not directory.exists():
        raise CheckpointError(f"{directory}: no such model directory", "check the path in the recipe")
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: is a file, not a model directory", "name the directory that holds config.json")
    config = read_json(directory / "config.json", "a model directory needs its config.json")
    weight_map, single = _weight_map(directory)
    tensors: dict[str, TensorInfo] = {}
    headers: dict[str, tuple[int, str]] = {}
    for file in dict.fromkeys(weight_map.values()) if weight_map else [single]:
        found, identity = _read_file(directory / file)
        headers[file] = identity
        for name, info in found.items():
            if weight_map and weight_map.get(name) != file:
                where = weight_map.get(name)
                problem = f"which the index places in {where}" if where else "which the index does not list"
                raise CheckpointError(
                    f"{directory / file}: holds tensor '{name}', {problem}", "save the checkpoint again or mend the index"
                )
            tensors[name] = info
    missing = [name for name in weight_map if name not in tensors]
    if missing:
        raise CheckpointError(
            f"{directory}: its index lists tensor '{missing[0]}' ({len(missing)} in all) that {weight_map[missing[0]]} lacks",
            "fetch the checkpoint again",
        )
    layout = Layout(directory, config, tensors, headers)
    if layout.pickled and layout.tied:  # a pickle holds a tied head a second time
        tensors.pop("lm_head.weight", None)
    if not tensors:
        raise CheckpointError(f"{directory}: its weight files hold no tensors", "fetch the checkpoint again")
    return layout


def read_json(path: Path, hint: str) -> dict[str, Any]:
    """A JSON object from a checkpoint's file; `hint` is the next step where the file is missing."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent}: has no {path.name}", hint) from None
    except (ValueError, RecursionError) as error:
        reason = "nests too deeply" if isinstance(error, RecursionError) else error
        raise CheckpointError(f"{path}: is not valid JSON ({reason})", "fetch the file again") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})", "check its permissions") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: is not a JSON object", "fetch the file again")
    return value


def _read_file(path: Path) -> tuple[dict[str, TensorInfo], tuple[int, str]]:
    if path.suffix == ".bin":
        from mergetool.checkpoint.pickled import tensor_infos

        return tensor_infos(path)
    return read_header(path)


def _weight_map(directory: Path) -> tuple[dict[str, str], str]:
    """(the index's tensor -> file mapping, "") or ({}, the single weight file). safetensors come before pickles."""
    for index, single in ((INDEX, SINGLE), (PICKLED_INDEX, PICKLED)):
        if (directory / index).exists():
            return _index(directory / index, Path(single).suffix), ""
        if (directory / single).exists():
            return {}, single
    others = sorted(p.name for p in directory.glob("*.safetensors"))
    if others:
        raise CheckpointError(
            f"{directory}: has {others[0]} but neither {SINGLE} nor {INDEX}", "add the index file or fetch it again"
        )
    raise CheckpointError(f"{directory}: has no weights ({SINGLE} or {INDEX})", "check the path in the recipe")


def _index(path: Path, suffix: str) -> dict[str, str]:
    mapping = read_json(path, "fetch the index again").get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise CheckpointError(f"{path}: has no weight_map", "fetch the index again")
    for name, file in mapping.items():
        if not isinstance(file, str) or not file or os.path.isabs(file) or Path(file).name != file or file == "..":
            raise CheckpointError(
                f"{path}: places tensor '{name}' in {file!r}, outside the checkpoint's directory", "do not use this checkpoint"
            )
        if not file.endswith(suffix):
            raise CheckpointError(f"{path}: places tensor '{name}' in {file!r}, not a {suffix} file", "fetch the index again")
    return mapping


def read_header(path: Path) -> tuple[dict[str, TensorInfo], tuple[int, str]]:
    """Parse and verify one safetensors header.

    Returns:
        The tensors in the order of their offsets, and (file size, sha256 of the header bytes).

    Raises:
        CheckpointError: the file is missing, truncated, or its header contradicts itself or the file's size.
    """
    again = "fetch the file again"
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            if len(prefix) < 8:
                raise CheckpointError(f"{path}: is truncated: {size} bytes are not even a header", again)
            (length,) = struct.unpack("<Q", prefix)
            if length > MAX_HEADER or length > size - 8:
                raise CheckpointError(
                    f"{path}: is truncated or damaged: its header claims {length:,} bytes, the file has {size:,}", again
                )
            raw = file.read(length)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such weight file", "fetch the checkpoint again: a shard is missing") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})", "check its permissions") from None
    try:
        header = json.loads(raw, object_pairs_hook=_unique)
    except RecursionError:
        raise CheckpointError(f"{path}: has a damaged header (nests too deeply)", again) from None
    except ValueError as error:  # JSON and UTF-8 errors, and a repeated name
        raise CheckpointError(f"{path}: has a damaged header ({error})", again) from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: has a damaged header (not a JSON object)", again)
    header.pop("__metadata__", None)
    data = 8 + length
    infos = [_tensor_info(path, name, entry, data) for name, entry in header.items()]
    infos.sort(key=lambda info: (info.offset, info.nbytes))
    end = data
    for info in infos:
        if info.offset != end:
            kind = "overlaps another tensor" if info.offset < end else "leaves a gap before it"
            raise CheckpointError(f"{path}: tensor '{info.name}' {kind}", again)
        end = info.offset + info.nbytes
    if end > size:
        raise CheckpointError(f"{path}: is truncated: tensors need {end:,} bytes, the file has {size:,}", again)
    if end < size:
        raise CheckpointError(f"{path}: has {size - end:,} bytes after its last tensor", again)
    return {info.name: info for info in infos}, (size, sha256(prefix + raw).hexdigest())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a name occurs twice")
    return mapping


def _tensor_info(path: Path, name: str, entry: Any, data: int) -> TensorInfo:
    again = "fetch the file again"
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise CheckpointError(
            f"{path}: has a damaged header: tensor '{name}' lacks dtype, shape or data_offsets", again
        ) from None
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(
            f"{path}: tensor '{name}' has dtype {dtype!r}, which is not supported", f"known: {', '.join(DTYPES)}"
        )
    numbers = [*shape, begin, end] if isinstance(shape, list) else [None]
    if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 62 for n in numbers) or begin > end:
        raise CheckpointError(f"{path}: has a damaged header: tensor '{name}' has an impossible shape or offsets", again)
    expected = DTYPES[dtype][1]
    for n in shape:
        expected *= n
    if expected != end - begin:
        raise CheckpointError(
            f"{path}: has a damaged header: tensor '{name}' ({dtype} {shape}) needs {expected:,} bytes, has {end - begin:,}",
            again,
        )
    return TensorInfo(name, dtype, tuple(shape), path, data + begin, end - begin)
