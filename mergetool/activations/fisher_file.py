"""The file of a model's Fisher information: made group by group of parameters, resumable, kept by content, read in blocks."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch

from mergetool.activations.fisher import add_squares
from mergetool.activations.journal import workspace
from mergetool.data.tokens import Coded
from mergetool.errors import CheckpointError, OutputError
from mergetool.files import Lock, cache_directory, sync
from mergetool.fingerprints import checkpoint_identity, digest

FORMAT, VERSION = "mergetool_fisher", 1
GROUP_BYTES = 4 << 30
"""Gradients and sums that are held at a time, beside the model; more of them take another pass over the rows."""
BYTES_PER_ENTRY = 8  # a gradient and a sum, fp32
_KEEP_EVERY = 120.0  # seconds between copies of unfinished sums
_PATIENCE = 24 * 3600.0
_GROUP = "fisher_group"
Told = Callable[[int, int], None]


class FisherFile:
    """F of each parameter of a model, mapped. Threads share it.

    Args:
        path: of the file.

    Attributes:
        facts: `model` and `rows` (identities and counts), where they were given.
        means: parameter name -> the mean of its F.
        shapes: parameter name -> its shape.

    Raises:
        CheckpointError: there is no such file, or it is damaged or holds something else.
    """

    def __init__(self, path: str | Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = Path(path)
        try:
            self._open = safe_open(self.path, framework="pt")
            header = json.loads((self._open.metadata() or {})[FORMAT])
            if header["version"] != VERSION:
                raise ValueError(f"version {header['version']}")
            self.facts: dict[str, Any] = header["facts"]
            self.means: dict[str, float] = header["means"]
            self.shapes = {name: tuple(self._open.get_slice(name).get_shape()) for name in self.means}
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: no Fisher information ({error})", "delete it: it is made again") from None
        self._flat: dict[str, torch.Tensor] = {}
        self._lock = threading.Lock()

    def block(self, name: str, start: int, stop: int) -> torch.Tensor:
        """The flat entries [start, stop) of a parameter's F: fp32, a view of the file that is not to be written to."""
        with self._lock:
            if name not in self._flat:
                self._flat[name] = self._open.get_tensor(name).view(-1)
            return self._flat[name][start:stop]


def fisher_key(model: str | Path, rows: Sequence[Coded], device: str) -> str:
    """What F depends on: the weights, the tokens, and what changes the last bits."""
    tokens = [[row.ids, row.start] for row in rows]
    return digest([VERSION, checkpoint_identity(model), tokens, torch.__version__, torch.device(device).type])


def kept_place(key: str) -> Path:
    """Where the user's cache has, or would have, the file of a key."""
    return cache_directory("fisher") / f"{key}.safetensors"


def kept_fisher(key: str, rows: Sequence[Coded], load: Callable[[], Any], facts: Mapping[str, Any], told: Told) -> FisherFile:
    """The file of a key from the user's cache, made now where it is not there; two runs that need it make it once.

    Args:
        key: of `fisher_key`.
        rows, load, facts, told: as `make_fisher`.

    Raises:
        OutputError: the cache cannot be written. CheckpointError: as `make_fisher`.
    """
    place = kept_place(key)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{place.parent}: cannot be made ({error.strerror})", "set MERGETOOL_CACHE to a directory that can be written to"
        ) from None
    lock = Lock(place.with_suffix(".lock"))
    lock.take(_PATIENCE)
    try:
        if place.exists():
            try:
                return FisherFile(place)
            except CheckpointError:  # damaged: made anew
                place.unlink()
        make_fisher(place, key, rows, load, facts, told)
        return FisherFile(place)
    finally:
        lock.release()


def make_fisher(
    out: Path,
    key: str,
    rows: Sequence[Coded],
    load: Callable[[], Any],
    facts: Mapping[str, Any],
    told: Told = lambda done, total: None,
    group_bytes: int = GROUP_BYTES,
) -> None:
    """Computes F and writes it; the same call after an interruption goes on where the last copy of its sums was made.

    Args:
        out: the file to write; nothing stands under its name before it is whole.
        key: of `fisher_key`.
        rows: of answers.
        load: gives the model, fp32 and in evaluation mode.
        facts: what the file says of itself.
        told: receives (rows done, rows in all passes).
        group_bytes: gradients and sums held at a time.

    Raises:
        CheckpointError: a gradient is no finite number. OutputError: `out` cannot be written, or is being written.
    """
    with workspace(out, key, fresh=False) as work:
        model = load()
        groups, means, where = groups_of(model, group_bytes), dict[str, float](), dict[str, Path]()
        for number, group in enumerate(groups):
            file = work / f"group-{number + 1:05d}.safetensors"
            for done, found in _group(model, group, rows, file):
                if not found:
                    told(number * len(rows) + done, len(groups) * len(rows))
                means |= found
            where |= dict.fromkeys(group, file)
        if bad := [name for name, mean in means.items() if not mean < float("inf")]:
            raise CheckpointError(
                f"{facts.get('model', {}).get('source', 'the model')}: the gradient of {bad[0]} is no finite number",
                "look whether evaluate gives finite numbers on these rows",
            )
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        del model  # the file is put together without it
        header = {"version": VERSION, "facts": dict(facts), "means": means}
        _join(out, where, shapes, len(rows), {FORMAT: json.dumps(header, sort_keys=True)})


def groups_of(model: Any, most: int = GROUP_BYTES) -> list[list[str]]:
    """Names of the parameters, in runs whose gradients and sums take at most `most` bytes (a larger one stands alone)."""
    found: list[list[str]] = []
    room = 0
    for name, p in model.named_parameters():
        need = BYTES_PER_ENTRY * p.numel()
        if not found or need > room:
            found.append([])
            room = most
        found[-1].append(name)
        room -= need
    return found


def _group(model: Any, group: Sequence[str], rows: Sequence[Coded], file: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """One pass over the rows for some parameters, whose sums are written down; yields (rows done, means once all are)."""
    named = dict(model.named_parameters())
    sums = {name: torch.zeros_like(named[name], dtype=torch.float32) for name in group}
    before = 0
    if file.is_file():
        stored = _Groups(dict.fromkeys(group, file))
        before = stored.state(file)["done"]
        for name in group:
            sums[name].copy_(stored.read(name))
        del stored  # its file will be replaced
    for name, p in named.items():
        p.requires_grad_(name in sums)  # a backward pass goes no further down than it must
    kept = time.monotonic()
    for more in add_squares(model, rows[before:], sums):
        if time.monotonic() - kept > _KEEP_EVERY:
            _write_group(file, sums, before + more)
            kept = time.monotonic()
        yield before + more, {}
    if before < len(rows):
        _write_group(file, sums, len(rows))
    yield len(rows), {name: float(one.double().mean()) / len(rows) if one.numel() else 0.0 for name, one in sums.items()}


def _write_group(file: Path, sums: Mapping[str, torch.Tensor], done: int) -> None:
    shapes = {name: tuple(one.shape) for name, one in sums.items()}
    _write(file, shapes, lambda name: sums[name].cpu(), {_GROUP: json.dumps({"done": done})})


def _join(
    out: Path, where: Mapping[str, Path], shapes: Mapping[str, tuple[int, ...]], rows: int, metadata: dict[str, str]
) -> None:
    """The means of all groups' sums as one file."""
    stored = _Groups(where)
    _write(out, shapes, lambda name: stored.read(name) / rows, metadata)


class _Groups:
    """Sums that were written down: name -> the file that it is in."""

    def __init__(self, where: Mapping[str, Path]) -> None:
        from safetensors import safe_open

        self._where, self._open = where, {file: safe_open(file, framework="pt") for file in dict.fromkeys(where.values())}

    def state(self, file: Path) -> dict[str, int]:
        """How far a group is."""
        return json.loads(self._open[file].metadata()[_GROUP])

    def read(self, name: str) -> torch.Tensor:
        """One sum."""
        return self._open[self._where[name]].get_tensor(name)


def _write(
    path: Path, shapes: Mapping[str, tuple[int, ...]], tensor: Callable[[str], torch.Tensor], metadata: dict[str, str]
) -> None:
    """A safetensors file of fp32, a tensor at a time: the library's own writer holds a copy of all of them."""
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, shape in shapes.items():
        size = 4 * prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name in shapes:
                file.write(tensor(name).contiguous().numpy().reshape(-1).view("uint8").data)
        sync(part)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})", "make room on the disk") from None
