"""Reading what others wrote: files alone, never a pipe or a device, up to a size and a depth, as UTF-8, without waiting.

A checkpoint, a recipe or a cache may hold anything under any name. Each reader here refuses what it cannot stand, by the
exceptions that damaged files raise anyway: OSError for what cannot be read, json.JSONDecodeError (a ValueError) for what is
no JSON. Who knows what the file is for turns these into one line.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any

LIMIT = 1 << 26
"""Bytes of a file that is read whole: twice the largest tokenizer.json in use."""
DEPTH = 100
"""Lists and mappings within one another. transformers' own files have six."""
LOG = 1 << 28
"""Bytes of a file that a run of ours appends to."""
_CONTAINERS = 2_000_000  # lists and mappings of one JSON text; each takes some 60 bytes of memory at the least

_HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISFIFO, "it is a named pipe, not a file"),
    (stat.S_ISCHR, "it is a device, not a file"),
    (stat.S_ISBLK, "it is a device, not a file"),
    (stat.S_ISSOCK, "it is a socket, not a file"),
)


class Refused(json.JSONDecodeError):
    """A JSON text that is refused for another reason than its grammar; it has no place in the text."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, "", 0)

    def __str__(self) -> str:
        return self.msg


def not_a_file(mode: int) -> str | None:
    """What stands in place of a file or a directory, of its ``st_mode``; None where it is one of them."""
    return next((what for is_kind, what in _KINDS if is_kind(mode)), None)


def opened(path: Path) -> BufferedReader:
    """A file open for reading in binary; a pipe that nobody writes to is not waited for.

    Raises:
        OSError: it cannot be opened, or it is no file.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "its name has a NUL in it", str(path))
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, not_a_file(mode) or "it is no file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def content(path: Path, limit: int = LIMIT) -> bytes:
    """All bytes of a file.

    Raises:
        OSError: it cannot be read, is no file, or has more bytes than `limit`.
    """
    with opened(path) as file:
        raw = file.read(limit + 1) if os.fstat(file.fileno()).st_size <= limit else b""
        if len(raw) > limit or file.read(1):
            raise OSError(errno.EOVERFLOW, f"it has more than {limit:,} bytes", str(path))
    return raw


def text(path: Path, limit: int = LIMIT, errors: str = "strict") -> str:
    """A file's text, which is UTF-8 whatever the locale says; line ends become ``\\n``.

    Raises:
        OSError: as `content`.
        UnicodeDecodeError: it is not UTF-8, and `errors` is strict.
    """
    try:
        found = content(path, limit).decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise _of(error, path) from None
    return found.replace("\r\n", "\n").replace("\r", "\n")


def parsed(raw: bytes | str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """A JSON text's value.

    Args:
        raw: the text, or its bytes.
        pairs: makes a mapping of its (key, value) pairs.

    Raises:
        json.JSONDecodeError: it is no JSON, not UTF-8, nests more than `DEPTH` deep, has millions of lists, or a number of
            more digits than Python reads.
    """
    opening = [raw.count(mark) for mark in ((b"[", b"{") if isinstance(raw, bytes) else ("[", "{"))]  # type: ignore[arg-type]
    if sum(opening) > _CONTAINERS:
        raise Refused(f"has more than {_CONTAINERS:,} lists and mappings")
    try:
        value = json.loads(raw, object_pairs_hook=pairs)
        if sum(opening) > DEPTH:
            _must_be_flat(value)
        if _HALF.search(raw if isinstance(raw, str) else raw.decode("latin-1")):
            _must_be_letters(value)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise Refused("nests too deeply") from None
    except UnicodeDecodeError:
        raise Refused("not UTF-8 text") from None
    except ValueError as error:  # a number of more digits than Python reads, or what `pairs` refuses
        raise Refused(str(error).partition(";")[0]) from None
    return value


def parsed_file(path: Path, limit: int = LIMIT) -> Any:
    """A JSON file's value.

    Raises:
        OSError: as `content`.
        json.JSONDecodeError: as `parsed`.
    """
    try:
        return parsed(content(path, limit))
    except json.JSONDecodeError as error:
        raise _of(error, path) from None


def _of(error: ValueError, path: Path) -> ValueError:
    """The error, with the file that it is about, as an OSError has it."""
    error.filename = str(path)  # type: ignore[attr-defined]
    return error


def _must_be_letters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Refused("has half of a letter that UTF-16 writes as a pair") from None


def _must_be_flat(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEPTH:
            raise Refused("nests too deeply")
        level = [
            child
            for one in level
            for child in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
            if isinstance(child, (dict, list))
        ]
