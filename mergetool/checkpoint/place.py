"""Where the files of a checkpoint lie: a directory on this disk, or whatever else can name and open its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from mergetool import reading
from mergetool.checkpoint.header import Header, read_header
from mergetool.checkpoint.recognise import LFS_HINT, file_instead, is_pointer
from mergetool.errors import CheckpointError


class Commit(Protocol):
    """A repository at one commit, as far as a checkpoint's headers need to know it."""

    @property
    def name(self) -> str:
        """As a recipe would write it."""
        ...

    @property
    def repo(self) -> str:
        """``org/name``."""
        ...

    @property
    def commit(self) -> str:
        """The commit's hash."""
        ...

    @property
    def files(self) -> Mapping[str, Any] | None:
        """File -> what the Hub tells of it, its hash among it; None where the Hub could not be reached."""
        ...


class Place(Protocol):
    """Where the files of a checkpoint lie.

    Attributes:
        name: what messages call it: the path, or the Hub id.
        directory: where its files are, or will be once they are fetched.
        pinned: the repository and its commit; None for a directory.
    """

    @property
    def name(self) -> str: ...
    @property
    def directory(self) -> Path: ...
    @property
    def pinned(self) -> Commit | None: ...

    def files(self) -> list[str]:
        """The names of all files, sorted."""
        ...

    def path(self, file: str) -> Path:
        """Where a small file lies on this disk; fetched first if need be. It need not exist in a directory."""
        ...

    def headers(self, files: list[str]) -> dict[str, Header]:
        """The headers of weight files, which are not fetched."""
        ...

    def called(self, file: str) -> str:
        """What messages call a file."""
        ...


class Directory:
    """A `Place` on this disk."""

    pinned: Commit | None = None

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.name = str(directory)
        if not self.directory.exists():
            raise CheckpointError(f"{directory}: no such model directory", "check the path in the recipe")
        if not self.directory.is_dir():
            what, hint = file_instead(self.directory)
            raise CheckpointError(f"{directory}: {what}", hint)

    def files(self) -> list[str]:
        """The names of all files, sorted."""
        return sorted(p.name for p in self.directory.iterdir())

    def path(self, file: str) -> Path:
        """Where a file lies, whether it exists or not."""
        return self.directory / file

    def headers(self, files: list[str]) -> dict[str, Header]:
        """The headers of weight files."""
        return {file: header_of(self.directory / file) for file in files}

    def called(self, file: str) -> str:
        """The file's path."""
        return str(self.directory / file)


def header_of(path: Path, called: str | None = None) -> Header:
    """The header of a weight file on this disk, pickled or not."""
    if path.suffix == ".bin":
        from mergetool.checkpoint.pickled import tensor_infos

        return tensor_infos(path)
    return read_header(path, called)


def read_json(place: Place, file: str, hint: str) -> dict[str, Any]:
    """A JSON object from a checkpoint's file; `hint` is the next step where the file is missing."""
    called = place.called(file)
    try:
        raw = reading.content(place.path(file))
        if is_pointer(raw):
            raise CheckpointError(f"{called}: is a Git-LFS pointer and not the file itself", LFS_HINT)
        value = reading.parsed(raw)
    except FileNotFoundError:
        raise CheckpointError(f"{place.name}: has no {file}", hint) from None
    except ValueError as error:
        raise CheckpointError(f"{called}: is not valid JSON ({error})", "fetch the file again") from None
    except OSError as error:
        raise CheckpointError(f"{called}: cannot be read ({error.strerror})", "check its permissions") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{called}: is not a JSON object", "fetch the file again")
    return value
