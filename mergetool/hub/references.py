"""Model references: a directory on this disk, or a repository on the Hub, of which planning reads headers alone."""

from __future__ import annotations

from pathlib import Path

from mergetool import hub
from mergetool.checkpoint.layout import Layout, read_layout
from mergetool.checkpoint.open import layout_of
from mergetool.checkpoint.place import Directory, Place
from mergetool.errors import CheckpointError
from mergetool.hub.fetch import Fetching, fetch_beside, fetch_weights
from mergetool.hub.model_reference import ModelReference, is_local
from mergetool.hub.repository import Repository


def open_layout(reference: str | Path, allow_pickle: bool = False) -> Layout:
    """The headers behind a model reference; of a repository nothing but its small files and headers is fetched.

    Args:
        reference: ``MODEL`` or ``MODEL+ADAPTER``, each a directory or ``org/name[@revision]``.
        allow_pickle: let a repository without safetensors pass; its .bin files are then fetched whole, here.

    Raises:
        CheckpointError: a part is missing, damaged, refused, or does not fit the other.
    """
    parts = ModelReference.read(reference)
    model = open_place(parts.model, allow_pickle)
    if parts.adapter is None:
        return layout_of(model)
    if is_local(parts.adapter) and not Path(parts.adapter).is_dir():
        raise CheckpointError(f"{parts.adapter}: no such adapter directory", "check the path after the + in the recipe")
    return layout_of(model, open_place(parts.adapter, allow_pickle))


def open_place(reference: str | Path, allow_pickle: bool = False) -> Place:
    """Where the files of one model, adapter or tokenizer lie.

    Raises:
        CheckpointError: there is no such directory or repository, or it is refused.
    """
    return Directory(reference) if is_local(reference) else Repository(hub.pin(str(reference)), allow_pickle)


def local_directory(reference: str | Path, progress: Fetching | None = None) -> Path:
    """The directory that a model reference stands for; all of a Hub repository that a model needs is fetched first.

    Args:
        reference: a path, or ``org/name[@revision]``.
        progress: told of bytes as they arrive.

    Raises:
        CheckpointError: the Hub does not answer or refuses, or holds no safetensors.
    """
    if is_local(reference):
        return Path(reference)
    layout = read_layout(open_place(ModelReference.read(reference).model))  # as it is stored: a loader knows its scheme
    fetch_weights([layout], progress)
    fetch_beside(layout)
    return layout.directory


def local_tokenizer(reference: str | Path) -> Path:
    """As `local_directory`, for its tokenizer and configuration alone."""
    if is_local(reference):
        return Path(reference)
    place = open_place(reference)
    fetch_beside(place)
    return place.directory
