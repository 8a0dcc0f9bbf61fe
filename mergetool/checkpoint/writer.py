"""Writing a checkpoint in place: preallocated shards, a journal to resume from, and one rename at the end.

Work goes to a sibling directory of the output, so that nothing half-written ever stands under the output's name.
Each shard is laid out beforehand (its header is known from the plan), so threads write tensors in any order with
positioned writes, and the bytes do not depend on the order. A thread of its own hashes behind them and brings to the
disk what is hashed, so that little is left to do after the last tensor.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import struct
import threading
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from mergetool.checkpoint.header import DTYPES
from mergetool.checkpoint.layout import INDEX, SINGLE
from mergetool.errors import OutputError

MANIFEST = "mergetool.json"
_JOURNAL = "journal.jsonl"
_HASHED_AT_ONCE, _SYNCED_AT_ONCE = 1 << 20, 1 << 26


@dataclass(frozen=True, slots=True)
class OutTensor:
    """A tensor to be written: its name, safetensors dtype and shape."""

    name: str
    dtype_name: str
    shape: tuple[int, ...]
    numel: int

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.numel * DTYPES[self.dtype_name][1]


@dataclass(frozen=True, slots=True)
class _Shard:
    file: str
    header: bytes
    tensors: tuple[OutTensor, ...]
    size: int


def partial_directory(out: Path) -> Path:
    """Where the work for `out` goes until it is complete."""
    return out.parent / f".{out.name}.mergetool-partial"


def check_output(out: Path, fingerprint: str | None = None) -> bool:
    """Refuse an output that cannot be written, before any work is done.

    Returns:
        True where `out` already holds exactly this result (same fingerprint), so that there is nothing to do.

    Raises:
        OutputError: the name is taken by something else, or its directory cannot be written to.
    """
    if out.is_dir() and (out / MANIFEST).exists():
        try:
            done = json.loads((out / MANIFEST).read_bytes()).get("fingerprint")
        except (ValueError, AttributeError):
            done = None
        if fingerprint is not None and done == fingerprint:
            return True
        raise OutputError(f"{out}: already holds another result of mergetool", "choose another name, or remove it first")
    if out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out}: exists and is not a result of mergetool", "choose another name; it is left untouched")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: exists and is a file", "choose another name; it is left untouched")
    parent = next(p for p in (out.absolute().parent, *out.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{out}: cannot be created, {parent} is not a directory one can write to", "choose another place")
    return False


class CheckpointWriter:
    """Writes one checkpoint. Use as a context manager; without `complete` the output does not appear.

    On an error of the user's (bad input) the working directory is removed; on an interruption it stays, and the same
    merge resumes from it.
    """

    def __init__(self, out: Path, tensors: list[OutTensor], fingerprint: str, *, shard_bytes: int, fresh: bool = False) -> None:
        self.out = Path(out)
        self.directory = partial_directory(self.out)
        self._fingerprint = fingerprint
        self._shards = _lay_out(tensors, shard_bytes)
        self._place: dict[str, tuple[int, int]] = {}
        for i, shard in enumerate(self._shards):
            offset = len(shard.header)
            for tensor in shard.tensors:
                self._place[tensor.name] = (i, offset)
                offset += tensor.nbytes
        self._files: list[int] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._hasher = threading.Thread(target=self._hash_all, name="hash", daemon=True)
        self._hashes: dict[str, str] = {}
        self._hash_error: Exception | None = None
        self._fresh = fresh
        self.reports: dict[str, dict[str, Any]] = {}
        """What was reported for each tensor that is done; filled from the journal when a run resumes."""

    def __enter__(self) -> CheckpointWriter:
        self._guard: int | None = None
        self._journal: int | None = None
        try:
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(exist_ok=True)
            self._guard = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            self._claim()
            self._resume()
            for shard in self._shards:
                self._files.append(self._open(shard))
            self._hasher.start()
        except OSError as error:
            failure = self._failure(error)
            self._close()
            if not self.reports:  # nothing of worth is in it yet
                shutil.rmtree(self.directory, ignore_errors=True)
            raise failure from None
        except OutputError:
            self._close()
            raise
        return self

    def _claim(self) -> None:
        try:
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{self.out}: another run is writing it now", "wait for it, or choose another name") from None

    def _resume(self) -> None:
        """Take over what an interrupted run of the same plan has finished."""
        path = self.directory / _JOURNAL
        first = {"fingerprint": self._fingerprint, "shards": [[s.file, s.size] for s in self._shards], "boot": _boot()}
        lines = path.read_text(errors="replace").splitlines() if path.exists() and not self._fresh else []
        entries = list(_entries(lines))
        if entries:
            head = entries[0]
            if head.get("fingerprint") != first["fingerprint"] or head.get("shards") != first["shards"]:
                raise OutputError(
                    f"{self.directory}: an interrupted run with another recipe, other inputs or another shard size",
                    "run again with --fresh to discard it",
                )
            whole = all(
                (self.directory / s.file).exists() and (self.directory / s.file).stat().st_size == s.size for s in self._shards
            )
            # what was not yet on the disk is lost with the machine's memory, not with the process
            if whole and head.get("boot") == first["boot"]:
                self.reports = {e["tensor"]: e["report"] for e in entries[1:] if e.get("tensor") in self._place}
        if not self.reports:
            for old in self.directory.iterdir():
                if old.name != "lock":
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            path.write_text(json.dumps(first) + "\n")
        elif not path.read_bytes().endswith(b"\n"):
            with path.open("a") as file:  # the line that the interruption cut short
                file.write("\n")
        self._journal = os.open(path, os.O_WRONLY | os.O_APPEND)

    def _open(self, shard: _Shard) -> int:
        descriptor = os.open(self.directory / shard.file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if os.fstat(descriptor).st_size != shard.size:
                os.posix_fallocate(descriptor, 0, shard.size)  # a full disk shows now, not after the work
                os.ftruncate(descriptor, shard.size)
                os.pwrite(descriptor, shard.header, 0)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def write(self, name: str, start: int, block: torch.Tensor) -> None:
        """Put flat elements of a tensor, in the output dtype and contiguous, at element `start`. Thread-safe.

        Raises:
            OutputError: the disk is full or fails.
        """
        shard, offset = self._place[name]
        data = memoryview(block.view(torch.uint8).numpy())
        position = offset + start * block.element_size()
        try:
            while data:
                written = os.pwrite(self._files[shard], data, position)
                data, position = data[written:], position + written
        except OSError as error:
            raise self._failure(error) from None

    def finished(self, name: str, report: dict[str, Any]) -> None:
        """Record that all of a tensor is written, with what is to be told of it. Thread-safe."""
        line = json.dumps({"tensor": name, "report": report}) + "\n"
        with self._changed:
            os.write(self._journal, line.encode())
            self.reports[name] = report
            self._changed.notify_all()

    def _hash_all(self) -> None:
        """The hashing thread: each shard from its start to its end, tensor by tensor as they are finished."""
        buffer = memoryview(bytearray(_HASHED_AT_ONCE))
        try:
            for shard, descriptor in zip(self._shards, self._files, strict=True):
                digest, offset, synced = sha256(shard.header), len(shard.header), 0
                for tensor in shard.tensors:
                    with self._changed:
                        self._changed.wait_for(lambda name=tensor.name: self._stopping or name in self.reports)
                    end = offset + tensor.nbytes
                    while offset < end:
                        if self._stopping:
                            return
                        count = os.preadv(descriptor, [buffer[: min(end - offset, len(buffer))]], offset)
                        if not count:
                            raise OSError(errno.EIO, f"{shard.file} has become shorter while it was written")
                        digest.update(buffer[:count])
                        offset += count
                        if offset - synced >= _SYNCED_AT_ONCE:
                            # its pages are the next ones to be written to: a large merge takes no memory from others
                            os.fdatasync(descriptor)
                            os.posix_fadvise(descriptor, synced, offset - synced, os.POSIX_FADV_DONTNEED)
                            synced = offset
                os.fsync(descriptor)
                self._hashes[shard.file] = digest.hexdigest()
        except Exception as error:  # told by `complete`, in the thread that asks
            self._hash_error = error

    def complete(self) -> dict[str, str]:
        """Wait until every shard is hashed and on the disk; every tensor must be finished.

        Returns:
            File name -> sha256 of each shard, in order. The index, where there are several, is written too.

        Raises:
            OutputError: the disk is full or fails.
        """
        missing = [t.name for s in self._shards for t in s.tensors if t.name not in self.reports]
        if missing:
            raise ValueError(f"not finished: {missing[:3]}")
        try:
            self._hasher.join()
            if self._hash_error is not None:
                raise self._hash_error
            if len(self._shards) > 1:
                total = sum(t.nbytes for s in self._shards for t in s.tensors)
                weight_map = {t.name: s.file for s in self._shards for t in s.tensors}
                index = {"metadata": {"total_size": total}, "weight_map": weight_map}
                (self.directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")
        except OSError as error:
            raise self._failure(error) from None
        return self._hashes

    def publish(self) -> None:
        """Give the finished directory its name."""
        try:
            self._close()
            for name in (_JOURNAL, "lock"):
                (self.directory / name).unlink(missing_ok=True)
            _sync(self.directory)
            os.rename(self.directory, self.out)
            _sync(self.out.parent)
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> OutputError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            need = sum(s.size for s in self._shards)
            return OutputError(f"{self.out}: the disk is full; {need:,} bytes are needed", "make room and run again")
        return OutputError(f"{self.out}: cannot be written ({error.strerror or error})", "check the disk and permissions")

    def discard(self) -> None:
        """Remove the working directory."""
        self._close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _close(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._hasher.is_alive():
            self._hasher.join()
        for descriptor in self._files:
            os.close(descriptor)
        self._files = []
        for descriptor in (self._journal, self._guard):
            if descriptor is not None:
                os.close(descriptor)
        self._journal = self._guard = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._close()


def _lay_out(tensors: list[OutTensor], shard_bytes: int) -> list[_Shard]:
    """Group tensors into shards in order, none above `shard_bytes` unless one tensor alone is."""
    groups: list[list[OutTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if groups[-1] and filled + tensor.nbytes > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += tensor.nbytes
    shards = []
    for i, group in enumerate(groups, 1):
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        # wide elements first, as the safetensors library does, so that every tensor is aligned
        group = sorted(group, key=lambda t: -DTYPES[t.dtype_name][1])
        for tensor in group:
            header[tensor.name] = {
                "dtype": tensor.dtype_name, "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.nbytes]
            }  # fmt: skip
            offset += tensor.nbytes
        raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        raw += b" " * (-len(raw) % 8)
        file = SINGLE if len(groups) == 1 else f"model-{i:05d}-of-{len(groups):05d}.safetensors"
        shards.append(_Shard(file, struct.pack("<Q", len(raw)) + raw, tuple(group), 8 + len(raw) + offset))
    return shards


def _entries(lines: list[str]) -> Any:
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # cut short by the interruption
        if isinstance(entry, dict):
            yield entry


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
