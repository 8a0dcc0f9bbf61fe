"""Hashes of files by what they hold, each computed once: a file is hashed again only when it may have changed.

What is known of a file is kept in the user's cache directory under its path, with its size, times of modification and of
change, and inode. No program can set the time of change back, so new content under an old time stamp is seen. A file that
changed less than two seconds ago could change again within one tick of its file system's clock: it is not kept.

Hashes are XXH3 of 128 bits: they tell files apart that differ by accident, as fast as memory is read, and do not withstand
one who makes two files on purpose. Weights are hashed tensor by tensor, so that a merge hashes what it reads anyway, block
by block, while a block is in the processor's cache (`Seen`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xxhash import xxh3_128

from mergetool import reading
from mergetool.checkpoint.header import TensorInfo, read_header
from mergetool.errors import CheckpointError
from mergetool.files import cache_directory, write_whole

if TYPE_CHECKING:
    import torch

Stamp = list[int]
"""Size in bytes, times of modification and of change in ns, inode."""
_SETTLED = 2_000_000_000  # ns; the coarsest clock of a file system in use
_LARGE = 1 << 24  # bytes from which on a hash is worth a file of its own in the cache
_AT_ONCE = 1 << 20
_memory: dict[tuple[str, Path], tuple[Stamp, str]] = {}


def stamp_of(path: Path) -> Stamp:
    """What changes when a file does.

    Raises:
        CheckpointError: it cannot be looked at.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def bytes_hash(path: Path) -> str:
    """XXH3 of a file's bytes."""
    return _remembered(path, "bytes", lambda file: _fed(xxh3_128(), file).hexdigest())


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as manifests and the Hub give it."""
    return _remembered(path, "sha256", lambda file: _fed(hashlib.sha256(), file).hexdigest())


def weights_hash(path: Path) -> str:
    """What a weight file holds: its header and each tensor's bytes; of a pickled one its bytes.

    Raises:
        CheckpointError: the file is missing, damaged, or changes while it is read.
    """
    if path.suffix != ".safetensors":
        return bytes_hash(path)
    tensors, (_, header) = read_header(path)
    return _remembered(path, "tensors", lambda file: _joined(header, [_of_tensor(file, info) for info in tensors.values()]))


def known_weights_hash(path: Path) -> str | None:
    """As `weights_hash` where it need not be computed; None elsewhere."""
    return _recalled(path, "tensors" if path.suffix == ".safetensors" else "bytes", stamp_of(path))


class Seen:
    """Hashes of tensors, taken from the blocks in which a merge reads them."""

    def __init__(self) -> None:
        self._began = time.time_ns()
        self._tensors: dict[tuple[Path, str], _Going] = {}

    def see(self, info: TensorInfo, start: int, block: torch.Tensor) -> None:
        """Take the next block of a tensor; one that is read again, or out of order, is passed over. Thread-safe.

        Args:
            info: of the tensor.
            start: the block's first element.
            block: the flat elements as they are stored.
        """
        going = self._tensors.get((info.file, info.name))
        if going is None:
            going = self._tensors.setdefault((info.file, info.name), _Going())
        if start == going.next and going.thread == threading.get_ident():
            import torch

            raw: Any = block.view(torch.uint8).numpy()
            going.hash.update(raw)
            going.next = start + block.numel()

    def weights_hash(self, path: Path, stamp: Stamp) -> str:
        """As the function of that name, reading only what was not seen.

        Args:
            path: the weight file.
            stamp: what it was before its first tensor was seen.

        Raises:
            CheckpointError: it is not what it was then, or cannot be read.
        """
        if path.suffix != ".safetensors":
            return bytes_hash(path)
        if (known := _recalled(path, "tensors", stamp)) is not None:
            _must_be(path, stamp)
            return known
        tensors, (_, header) = read_header(path)
        with _opened(path) as file:
            found = _joined(header, [self._of(info) or _of_tensor(file, info) for info in tensors.values()])
        _must_be(path, stamp)
        _remember(path, "tensors", stamp, found, self._began)
        return found

    def _of(self, info: TensorInfo) -> str | None:
        going = self._tensors.get((info.file, info.name))
        return going.hash.hexdigest() if going is not None and going.next == info.numel else None


class _Going:
    """A tensor's hash so far, the element that comes next, and the thread that reads it."""

    __slots__ = ("hash", "next", "thread")

    def __init__(self) -> None:
        self.hash, self.next, self.thread = xxh3_128(), 0, threading.get_ident()


def _joined(header: str, tensors: list[str]) -> str:
    return xxh3_128("".join([header, *tensors]).encode()).hexdigest()


def _of_tensor(file: BufferedReader, info: TensorInfo) -> str:
    file.seek(info.offset)
    return _fed(xxh3_128(), file, info.nbytes).hexdigest()


def _fed(hasher: Any, file: BufferedReader, count: int | None = None) -> Any:
    """A hasher that has taken in `count` bytes from where a file stands; all that are left where none is said."""
    buffer = memoryview(bytearray(_AT_ONCE if count is None else min(count, _AT_ONCE)))
    while count is None or count:
        found = file.readinto(buffer if count is None else buffer[:count])
        if not found:
            if count is None:
                break
            raise OSError(errno.EIO, "has become shorter while it was read")
        hasher.update(buffer[:found])
        count = None if count is None else count - found
    return hasher


# --- what is known already ----------------------------------------------------------------------------------------------


def _remembered(path: Path, kind: str, compute: Callable[[BufferedReader], str]) -> str:
    stamp = stamp_of(path)
    found = _recalled(path, kind, stamp)
    if found is None:
        asked = time.time_ns()
        with _opened(path) as file:
            found = compute(file)
        _must_be(path, stamp)
        _remember(path, kind, stamp, found, asked)
    return found


def _recalled(path: Path, kind: str, stamp: Stamp) -> str | None:
    """The hash that is kept for a file as it is now."""
    place = path.resolve()
    if (kind, place) not in _memory:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = reading.parsed_file(_entry(kind, place))
            if kept["path"] == str(place) and isinstance(kept["hash"], str):
                _memory[kind, place] = kept["stamp"], kept["hash"]
    before, found = _memory.get((kind, place), ([], ""))
    return found if before == stamp else None


def _remember(path: Path, kind: str, stamp: Stamp, found: str, read_from: int) -> None:
    """Keep a hash, unless the file may change again unseen. A cache that cannot be written to is done without.

    Args:
        path, kind, stamp, found: what is kept.
        read_from: when the file's first byte was read, ns.
    """
    if read_from - max(stamp[1], stamp[2]) < _SETTLED:
        return
    place = path.resolve()
    _memory[kind, place] = stamp, found
    if stamp[0] >= _LARGE:
        entry = _entry(kind, place)
        with contextlib.suppress(OSError):
            entry.parent.mkdir(parents=True, exist_ok=True)
            write_whole(entry, json.dumps({"path": str(place), "stamp": stamp, "hash": found}))


def _entry(kind: str, place: Path) -> Path:
    return cache_directory("hashes") / f"{xxh3_128(str(place).encode()).hexdigest()}.{kind}.json"


def _must_be(path: Path, stamp: Stamp) -> None:
    if stamp_of(path) != stamp:
        raise CheckpointError(f"{path}: changed while it was read", "run again when it is complete")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        with reading.opened(path) as file:
            yield file
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{path}: cannot be read ({error.strerror or error})", "check its permissions and the disk")
