"""What a checkpoint holds, from headers alone; its files may lie in a directory or, not fetched yet, on the Hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergetool.architecture.fused import Runs
from mergetool.architecture.reading import copies_of
from mergetool.checkpoint.adapter import Adapter
from mergetool.checkpoint.header import TensorInfo
from mergetool.checkpoint.place import Commit, Directory, Place, read_json
from mergetool.checkpoint.quantised import Dequantised
from mergetool.checkpoint.recognise import what_lies_there
from mergetool.errors import CheckpointError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLED_INDEX, PICKLED = "pytorch_model.bin.index.json", "pytorch_model.bin"


# What torch's wrappers put into the names of a state dict that was taken of them and not of the model.
_WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")


@dataclass(frozen=True)
class InForm:
    """A layout whose tensors are shown in another form; see `in_form`.

    Attributes:
        below: as they are stored.
        runs: tensor as shown -> where its entries lie.
    """

    below: Layout
    runs: dict[str, Runs] = field(repr=False)


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
    place: Place | None = field(default=None, compare=False)
    dequantised: Dequantised | None = None
    in_form: InForm | None = None

    @property
    def name(self) -> str:
        """What messages call it: the path, or the Hub id."""
        return self.place.name if self.place is not None else str(self.directory)

    @property
    def pinned(self) -> Commit | None:
        """The repository and commit that it lies in; None for a directory."""
        return self.place.pinned if self.place is not None else None

    @property
    def parts(self) -> list[tuple[Commit | None, Path, dict[str, tuple[int, str]]]]:
        """The model and its adapter, each as (commit on the Hub or None, directory, headers of its weight files)."""
        found = [(self.pinned, self.directory, self.headers)]
        if self.adapter is not None:
            place = self.adapter.place
            found.append((place.pinned, place.directory, {self.adapter.file: self.adapter.header}))
        return found

    @property
    def pickled(self) -> bool:
        """True where the weights are .bin files."""
        return any(name.endswith(".bin") for name in self.headers)

    @property
    def files(self) -> dict[Path, tuple[int, str]]:
        """Every weight file that is read, an adapter's too -> (size in bytes, sha256 of its header)."""
        found = {self.directory / name: identity for name, identity in self.headers.items()}
        if self.adapter is not None:
            found[self.adapter.place.directory / self.adapter.file] = self.adapter.header
        return found

    def files_of(self, name: str) -> list[Path]:
        """The weight files that one tensor is read from."""
        if self.in_form is not None and name in self.in_form.runs:
            below = self.in_form.below
            return list(dict.fromkeys(file for piece in self.in_form.runs[name] for file in below.files_of(piece.name)))
        found = self.dequantised.files(name) if self.dequantised is not None else []
        return found or [self.tensors[name].file]

    @property
    def nbytes(self) -> int:
        """Bytes of weights."""
        return sum(t.nbytes for t in self.tensors.values())


def read_layout(place: str | Path | Place) -> Layout:
    """Read a checkpoint's configuration and the headers of its weight files.

    Args:
        place: a directory that holds config.json and model.safetensors, or an index and its shards; or a `Place`.

    Raises:
        CheckpointError: a file is missing or damaged; the message names it and what to do.
    """
    return _read(Directory(place) if isinstance(place, (str, Path)) else place)


def _read(place: Place) -> Layout:
    if "config.json" not in (files := place.files()) and "adapter_config.json" in files:
        raise CheckpointError(f"{place.name}: is an adapter, not a model", f"write MODEL+{place.name}")
    if "config.json" not in files and (found := recognised(place)) is not None:
        raise CheckpointError(f"{place.name}: {found[0]}, not a checkpoint with its config.json", found[1])
    config = read_json(place, "config.json", "a model directory needs its config.json")
    weight_map, single = _weight_map(place)
    tensors: dict[str, TensorInfo] = {}
    headers: dict[str, tuple[int, str]] = {}
    for file, (found, identity) in place.headers(list(dict.fromkeys(weight_map.values())) or [single]).items():
        headers[file] = identity
        for name, info in found.items():
            if weight_map and weight_map.get(name) != file:
                where = weight_map.get(name)
                problem = f"which the index places in {where}" if where else "which the index does not list"
                raise CheckpointError(
                    f"{place.called(file)}: holds tensor '{name}', {problem}", "save the checkpoint again or correct the index"
                )
            tensors[name] = info
    missing = [name for name in weight_map if name not in tensors]
    if missing:
        raise CheckpointError(
            f"{place.name}: its index lists tensor '{missing[0]}' ({len(missing)} in all) that {weight_map[missing[0]]} lacks",
            "fetch the checkpoint again",
        )
    tensors = _unwrapped(place.name, tensors)
    layout = Layout(place.directory, config, tensors, headers, place=place)
    if layout.pickled:  # a pickle holds a tied weight under each of its names
        from mergetool.checkpoint.pickled import same  # torch is imported where a file needs it

        for _, name, other in copies_of(layout):
            if name in tensors and same(tensors[name], tensors[other]):
                del tensors[name]
    must_have_entries(place.name, tensors)
    if not tensors:
        raise CheckpointError(f"{place.name}: its weight files hold no tensors", "fetch the checkpoint again")
    return layout


def _unwrapped(called: str, tensors: dict[str, TensorInfo]) -> dict[str, TensorInfo]:
    """The tensors by the model's own names, where a wrapper of torch's (compile, DDP, FSDP) was saved in its place."""
    names = {name: _WRAPPERS.sub("", name).removeprefix(".") for name in tensors}
    while names and all(name.startswith("module.") for name in names.values()):
        names = {raw: name.removeprefix("module.") for raw, name in names.items()}
    if len(set(names.values())) < len(names):
        raise CheckpointError(
            f"{called}: holds tensors twice, with and without torch's wrappers", "save the model itself again"
        )
    return {names[raw]: info for raw, info in tensors.items()}


def _weight_map(place: Place) -> tuple[dict[str, str], str]:
    """(the index's tensor -> file mapping, "") or ({}, the single weight file). safetensors come before pickles."""
    files = place.files()
    for index, single in ((INDEX, SINGLE), (PICKLED_INDEX, PICKLED)):
        if single in files:  # first, as transformers has it: an index beside it is left from an earlier save
            return {}, single
        if index in files:
            return _index(place, index, Path(single).suffix), ""
    if (found := recognised(place)) is not None:
        raise CheckpointError(f"{place.name}: has no weights ({SINGLE} or {INDEX}), but {found[0]}", found[1])
    if others := [name for name in files if name.endswith(".safetensors")]:
        raise CheckpointError(
            f"{place.name}: has {others[0]} but neither {SINGLE} nor {INDEX}", "add the index file or fetch it again"
        )
    raise CheckpointError(f"{place.name}: has no weights ({SINGLE} or {INDEX})", "check the path in the recipe")


def recognised(place: Place) -> tuple[str, str] | None:
    """What lies in place of a checkpoint, and the next step."""
    known = getattr(place.pinned, "files", None)
    names = known or [p.relative_to(place.directory).as_posix() for p in place.directory.glob("**/*") if p.is_file()]
    return what_lies_there(place.name, names)


def must_have_entries(name: str, tensors: dict[str, TensorInfo]) -> None:
    """Refuses a checkpoint most of whose weights have no entries, as DeepSpeed's third stage saves them ungathered."""
    weights = [info for info in tensors.values() if info.floating]
    empty = [info.name for info in weights if info.numel == 0]
    if len(empty) > 1 and 2 * len(empty) > len(weights):
        raise CheckpointError(
            f"{name}: '{empty[0]}' and {len(empty) - 1} more of its weights have no entries",
            "save the checkpoint again: the shards of its training were not gathered",
        )


def _index(place: Place, index: str, suffix: str) -> dict[str, str]:
    called = place.called(index)
    mapping = read_json(place, index, "fetch the index again").get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise CheckpointError(f"{called}: has no weight_map", "fetch the index again")
    for name, file in mapping.items():
        if not isinstance(file, str) or not file or os.path.isabs(file) or Path(file).name != file or file == "..":
            raise CheckpointError(
                f"{called}: places tensor '{name}' in {file!r}, outside the checkpoint's directory",
                "do not use this checkpoint",
            )
        if not file.endswith(suffix):
            raise CheckpointError(f"{called}: places tensor '{name}' in {file!r}, not a {suffix} file", "fetch the index again")
    return mapping
