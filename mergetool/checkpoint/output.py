"""What already has an output's name: nothing, this very result and all of it, or something that stays untouched."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from mergetool.checkpoint.adapter import ADAPTER
from mergetool.checkpoint.content import sha256_of
from mergetool.checkpoint.layout import INDEX, read_layout
from mergetool.checkpoint.manifest import MANIFEST, SCHEMA, Manifest
from mergetool.checkpoint.model_files import needed_beside
from mergetool.checkpoint.place import Directory
from mergetool.checkpoint.working_directory import MARKS
from mergetool.errors import CheckpointError, OutputError

OF_THE_RUN = ("metrics.jsonl", "training.png")
"""Files of a result that describe how it was made; it is whole without them."""


def check_output(out: Path, same: Callable[[Manifest], bool] | None = None) -> bool:
    """Refuse an output that cannot be written, before any work is done.

    Args:
        out: the name that the result will get.
        same: whether a manifest tells of the result that is wanted. None: no result that is there will do.

    Returns:
        True where `out` holds exactly this result and all of it, so that there is nothing to do.

    Raises:
        OutputError: the name is taken by something else or by a damaged result, or its directory cannot be written to.
        CheckpointError: whether it is the same cannot be found out: an input cannot be read.
    """
    _must_take_a_rename(out)
    if out.is_dir() and (out / MANIFEST).exists():
        try:
            manifest = Manifest.read(out)
        except CheckpointError:
            manifest = None
        if same is not None and manifest is not None and same(manifest):
            if problem := what_is_missing(out, manifest):
                raise OutputError(
                    f"{out}: was this result and is not whole any more: {problem}", "remove it, and run again to make it anew"
                )
            return True
        other = "another result of mergetool"
        if manifest is not None and manifest.schema < SCHEMA:
            other = "a result of an earlier version, which did not note what its inputs held"
        raise OutputError(f"{out}: already holds {other}", "choose another name, or remove it first")
    if out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out}: exists and is not a result of mergetool", "choose another name; it is left untouched")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: exists and is a file", "choose another name; it is left untouched")
    parent = next(p for p in (out.absolute().parent, *out.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{out}: cannot be created, {parent} is not a directory one can write to", "choose another place")
    return False


def _must_take_a_rename(out: Path) -> None:
    """Refuses what no directory can be renamed to at the end, which is seen by name and not through links."""
    if out.name in ("", ".."):
        raise OutputError(f"{out}: has no name of its own", "name a directory to make in it")
    if out.is_symlink():
        target = "a link to nothing" if not out.exists() else "a link"
        raise OutputError(f"{out}: is {target}", "name the directory itself; the link is left untouched")
    if os.path.ismount(out):
        raise OutputError(f"{out}: is where another file system is mounted", f"name a directory in it: {out / 'merged'}")


def weight_hashes(directory: Path) -> dict[str, str]:
    """File name -> sha256 of each weight file of a checkpoint directory."""
    return {name: sha256_of(directory / name) for name in _weight_files(directory)}


def _weight_files(directory: Path) -> list[str]:
    """The weight files of a model or an adapter, whose headers are as long as they say."""
    if (directory / ADAPTER).is_file() and not (directory / "config.json").exists():
        return list(Directory(directory).headers([ADAPTER]))
    return list(read_layout(directory).headers)


def files_beside(directory: Path) -> list[str]:
    """The files of a result beside its weights that it cannot do without, for its manifest."""
    names = {*needed_beside(Directory(directory)), *([INDEX] if (directory / INDEX).is_file() else [])}
    return sorted(names - {*MARKS, *OF_THE_RUN})


def what_is_missing(out: Path, manifest: Manifest) -> str:
    """In what a result is no longer what was written; empty where it is whole.

    Weight files are there, as long as their headers say, and have the bytes that were written (a file that has not
    changed since it was looked at last is not read again). Of the other files, that they are there.
    """
    try:
        headers = _weight_files(out)
        for name in manifest.files or ():
            if not (out / name).is_file():
                return f"{name} is missing"
        for name, digest in manifest.outputs_sha256.items():
            if name not in headers:
                return f"{name} is missing"
            if sha256_of(out / name) != digest:
                return f"{name} is not what {MANIFEST} says was written"
    except CheckpointError as error:
        return error.message.removeprefix(f"{out}: ").removeprefix(f"{out}{os.sep}")
    return ""
