"""What differs between operating systems and file systems: locks, positioned reads and writes, syncing, room on a disk.

No other file of the package calls fcntl, os.posix_*, os.pwrite, os.preadv, os.fsync or os.sched_*. Where a system lacks
one of them, what is done instead is written here: it is slower, or promises less after a power failure, and the bytes
of a result are the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from pathlib import Path

from filelock import FileLock, Timeout, UnixFileLock

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_one_at_a_time = threading.Lock()  # a file's position is shared by the threads, where there are no positioned calls


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def most_open_files() -> int:
    """How many files this process may have open at a time."""
    try:
        import resource
    except ImportError:
        return 512  # the C library's own limit there
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most if most != resource.RLIM_INFINITY else 1 << 20


def disk_is_full(error: OSError) -> bool:
    """Whether the disk, or the user's share of it, has no room left."""
    return error.errno in _FULL


def cache_directory(part: str) -> Path:
    """Where what can be computed again is kept: in $MERGETOOL_CACHE, else in the user's cache directory.

    Args:
        part: what is kept there; each kind has a directory of its own.
    """
    if given := os.environ.get("MERGETOOL_CACHE"):
        return Path(given) / part
    local = os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else os.environ.get("XDG_CACHE_HOME")
    return Path(local or Path.home() / ".cache") / "mergetool" / part


# --- positioned reading and writing -------------------------------------------------------------------------------------


def write_at(descriptor: int, data: memoryview, position: int) -> None:
    """Write all of `data` at `position`, in bytes; threads may do so at the same time."""
    while data:
        if hasattr(os, "pwrite"):
            written = os.pwrite(descriptor, data, position)
        else:
            with _one_at_a_time:
                os.lseek(descriptor, position, os.SEEK_SET)
                written = os.write(descriptor, data)
        data, position = data[written:], position + written


def read_at(descriptor: int, buffer: memoryview, position: int) -> int:
    """Read into `buffer` from `position`, in bytes; returns how many came, 0 at the file's end."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], position)
    with _one_at_a_time:
        os.lseek(descriptor, position, os.SEEK_SET)
        found = os.read(descriptor, len(buffer))
    buffer[: len(found)] = found
    return len(found)


def make_room(descriptor: int, size: int) -> None:
    """Give a file its size in bytes; where the system can say it, a disk that has no room shows now."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:  # some file systems keep no room for a file
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
    os.ftruncate(descriptor, size)


# --- to the disk --------------------------------------------------------------------------------------------------------


def sync(path: Path) -> None:
    """Bring a file or a directory to the disk; a system that cannot open directories does that by itself."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        if path.is_dir() and sys.platform == "win32":
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Bring every file below a directory, and the directories themselves, to the disk."""
    for folder, _, names in os.walk(directory):
        for name in names:
            sync(Path(folder) / name)
        sync(Path(folder))


def sync_open(descriptor: int) -> None:
    """Bring an open file to the disk."""
    os.fsync(descriptor)


def sync_and_let_go(descriptor: int, start: int, count: int) -> None:
    """Bring a part of a file to the disk and tell the system that its pages are not needed any more."""
    getattr(os, "fdatasync", os.fsync)(descriptor)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, count, os.POSIX_FADV_DONTNEED)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a small file so that others see all of it or what was there before."""
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def give_name(directory: Path, name: Path) -> None:
    """Rename a finished directory and bring the new name to the disk.

    Raises:
        OSError: something else has the name. An empty directory is replaced.
    """
    if sys.platform == "win32" and name.is_dir():
        name.rmdir()  # there a rename replaces nothing
    os.rename(directory, name)
    sync(name.absolute().parent)


# --- locks --------------------------------------------------------------------------------------------------------------


class Lock:
    """A lock between processes, on a file that exists while someone holds it.

    The file is removed by the holder, before it lets go. One who had opened it meanwhile then holds the lock of a file
    without a name; filelock sees that (no links are left) and opens the name anew, so that two never hold one name.
    A process that dies lets go without removing the file, and the next one takes it over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path, thread_local=False)

    def take(self, patience: float) -> bool:
        """Whether the lock is held now; False where another still has it after `patience` seconds.

        Raises:
            OSError: the file cannot be opened or the file system knows no locks; nothing is known of others then.
        """
        try:
            self._lock.acquire(timeout=patience, poll_interval=0.02)
        except Timeout:
            return False
        return True

    def release(self) -> None:
        """Let go; nothing where it is not held."""
        if not self._lock.is_locked:
            return
        if isinstance(self._lock, UnixFileLock):  # the other kinds remove their file by themselves
            with contextlib.suppress(OSError):
                self.path.unlink()
        self._lock.release()
