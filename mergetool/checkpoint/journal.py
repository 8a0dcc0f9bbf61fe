"""The journal of an unfinished checkpoint: whose work it is, and which tensors are finished with which bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xxhash import xxh3_64

from mergetool import reading
from mergetool.files import write_whole

JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class Head:
    """Whose work it is.

    Attributes:
        fingerprint: of what is made.
        shards: (file, size in bytes) of each.
        inputs: what the work is made of, as plain JSON; whoever made it knows it again.
    """

    fingerprint: str
    shards: list[list[Any]]
    inputs: Any = None


@dataclass(frozen=True)
class Finished:
    """A finished tensor: its name, what is to be told of it, and the hash of its bytes (None: not known)."""

    tensor: str
    report: dict[str, Any]
    hash: str | None


class Journal:
    """One line for the head, one for each finished tensor. Lines are appended, so a kill costs the last one at most."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def read(self) -> tuple[Head | None, list[Finished]]:
        """The head, and what is finished; (None, []) where there is no journal.

        Raises:
            OSError: it cannot be read.
            ValueError: it is damaged: its first line is no head.
        """
        try:
            lines = reading.text(self.path, reading.LOG, errors="replace").split("\n")
        except FileNotFoundError:
            return None, []
        entries = list(_entries(lines))
        try:
            head = Head(**entries[0])
        except (IndexError, TypeError):
            raise ValueError("no head") from None
        return head, [one for entry in entries[1:] if (one := _finished(entry)) is not None]

    def begin(self, head: Head, finished: list[Finished]) -> None:
        """Start it anew with these lines; it is never seen without its head."""
        self.close()
        lines = [json.dumps(one) + "\n" for one in (asdict(head), *map(_line, finished))]
        write_whole(self.path, "".join(lines))
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)

    def add(self, one: Finished) -> None:
        """A tensor is finished."""
        assert self._descriptor is not None  # `begin` has opened it
        line = (json.dumps(_line(one)) + "\n").encode()
        while line:  # a disk that is nearly full takes a part of it, and says so the next time
            line = line[os.write(self._descriptor, line) :]

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _line(one: Finished) -> dict[str, Any]:
    """As it is written: facts about a tensor go into the manifest, so a damaged line must not be believed."""
    said = asdict(one)
    return {**said, "check": xxh3_64(json.dumps(said, sort_keys=True).encode()).hexdigest()}


def _finished(entry: dict[str, Any]) -> Finished | None:
    try:
        found = Finished(**{key: value for key, value in entry.items() if key != "check"})
    except TypeError:
        return None
    return found if _line(found) == entry else None


def _entries(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            entry = reading.parsed(line)
        except ValueError:
            continue  # cut short by the interruption
        if isinstance(entry, dict):
            yield entry
