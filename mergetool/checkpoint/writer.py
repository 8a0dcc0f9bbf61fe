"""Writing a checkpoint in place: preallocated shards, a journal to resume from, and one rename at the end.

Work goes to a sibling directory of the output, so that nothing half-written ever stands under the output's name.
Each shard is laid out beforehand (its header is known from the plan), so threads write tensors in any order with
positioned writes, and the bytes do not depend on the order. A thread of its own hashes behind them and brings to the
disk what is hashed, so that little is left to do after the last tensor.

A run that is taken up again believes nothing of its predecessor's but what it has seen: the journal holds a hash of each
finished tensor's bytes, these are read again, and a tensor that is not what was written (a power failure, a damaged or
cut shard) is made anew while the others stay.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from xxhash import xxh3_128

from mergetool import files
from mergetool.checkpoint.journal import JOURNAL, Finished, Head, Journal
from mergetool.checkpoint.layout import INDEX, SINGLE
from mergetool.checkpoint.shards import OutTensor, Shard, index_of, lay_out
from mergetool.checkpoint.working_directory import WorkingDirectory, partial_directory
from mergetool.errors import OutputError

__all__ = ["CheckpointWriter", "OutTensor", "partial_directory"]
_HASHED_AT_ONCE, _SYNCED_AT_ONCE = 1 << 20, 1 << 26


class CheckpointWriter:
    """Writes one checkpoint. Use as a context manager; without `publish` the output does not appear.

    Args:
        out: the name that the checkpoint will get.
        tensors: what will be written, in order.
        fingerprint: of what is made; work of another fingerprint is never gone on with.
        shard_bytes: upper bound of a weight file, in bytes.
        fresh: discard what an interrupted run left.
        inputs: what the work is made of, as plain JSON, for the journal.
        same_inputs: whether the inputs of an interrupted run are still what they were, from its own `inputs`.
        single: the weight file's name where there is one.

    Attributes:
        directory: where the work is; other files of the checkpoint are put there too.
        reports: what was reported for each tensor that is done; filled from the journal when a run resumes.
    """

    def __init__(
        self,
        out: Path,
        tensors: list[OutTensor],
        fingerprint: str,
        *,
        shard_bytes: int,
        fresh: bool = False,
        inputs: Any = None,
        same_inputs: Callable[[Any], bool] = lambda inputs: True,
        single: str = SINGLE,
    ) -> None:
        self.out = Path(out)
        self._work = WorkingDirectory(self.out)
        self.directory = self._work.directory
        self._shards = lay_out(tensors, shard_bytes, single)
        self._head = Head(fingerprint, [[s.file, s.size] for s in self._shards], inputs)
        self._same_inputs = same_inputs
        self._place = {name: (i, offset) for i, s in enumerate(self._shards) for name, offset in s.offsets.items()}
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._journal = Journal(self.directory / JOURNAL)
        self._earlier: list[Finished] = []
        self._files: list[int] = []
        self._written: dict[str, tuple[Any, int]] = {}  # tensor -> (hash of its first bytes, how many)
        self._changed = threading.Condition()
        self._stopping = False
        self._hasher = threading.Thread(target=self._hash_all, name="hash", daemon=True)
        self._hashes: dict[str, str] = {}
        self._hash_error: Exception | None = None
        self._fresh = fresh
        self.reports: dict[str, dict[str, Any]] = {}

    # --- opening ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> CheckpointWriter:
        """Take the working directory, and over from an interrupted run what it has finished.

        Raises:
            OutputError: another run is writing, the work that is there is not this one's, or the disk fails. What is there
                stays.
        """
        self._work.__enter__()
        try:
            self._take_over()
            kept = max(4, files.most_open_files() // 16)
            for number, shard in enumerate(self._shards):
                descriptor = self._open(shard)
                if number < kept:
                    self._files.append(descriptor)
                else:
                    os.close(descriptor)
            self._earlier = [one for one in self._earlier if self._is_whole(one)]
            self._journal.begin(self._head, self._earlier)
            self.reports = {one.tensor: one.report for one in self._earlier}
            self._hasher.start()
        except BaseException as error:
            self._close()
            if self._work.made:
                self._work.remove()
            self._work.release()
            if isinstance(error, OSError):
                raise self._failure(error) from error
            raise
        return self

    def _take_over(self) -> None:
        """Look at what is in the directory: its own interrupted run's journal, nothing of worth, or another's work."""
        if self._fresh:
            self._work.empty()
            return
        discard = "run again with --fresh to discard it"
        try:
            head, finished = self._journal.read()
        except ValueError:
            raise OutputError(f"{self.directory}: an interrupted run whose {JOURNAL} is damaged", discard) from None
        if head is None:
            if self._work.holds_work():
                raise OutputError(f"{self.directory}: an interrupted run of another kind", discard)
            self._work.empty()
        elif head.fingerprint != self._head.fingerprint or head.shards != self._head.shards:
            raise OutputError(
                f"{self.directory}: an interrupted run with another recipe, other inputs or another shard size", discard
            )
        elif not self._same_inputs(head.inputs):
            raise OutputError(f"{self.directory}: an interrupted run whose inputs have changed since", discard)
        else:
            for cut in self.directory.glob(".*.part"):  # small files that a kill left half written, see `files.write_whole`
                cut.unlink()
            self._earlier = list({one.tensor: one for one in finished if one.tensor in self._place}.values())

    def _open(self, shard: Shard) -> int:
        descriptor = os.open(self.directory / shard.file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        try:
            if os.fstat(descriptor).st_size != shard.size:
                files.make_room(descriptor, shard.size)  # a full disk shows now, not after the work
            files.write_at(descriptor, memoryview(shard.header), 0)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    @contextmanager
    def _at(self, shard: int) -> Iterator[int]:
        """A shard's descriptor: of the first ones that which is kept open, of the others one for this moment."""
        if shard < len(self._files):
            yield self._files[shard]
            return
        descriptor = os.open(self.directory / self._shards[shard].file, os.O_RDWR | getattr(os, "O_BINARY", 0))
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _is_whole(self, one: Finished) -> bool:
        """Whether a finished tensor's bytes are still those that were written."""
        shard, offset = self._place[one.tensor]
        hasher, end = xxh3_128(), offset + self._tensors[one.tensor].nbytes
        buffer = memoryview(bytearray(min(_HASHED_AT_ONCE, max(end - offset, 1))))
        with self._at(shard) as descriptor:
            while offset < end:
                count = files.read_at(descriptor, buffer[: min(end - offset, len(buffer))], offset)
                if not count:
                    return False
                hasher.update(buffer[:count])
                offset += count
        return hasher.hexdigest() == one.hash

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, name: str, start: int, block: torch.Tensor) -> None:
        """Put flat elements of a tensor, in the output dtype and contiguous, at element `start`. Thread-safe.

        Raises:
            OutputError: the disk is full or fails.
        """
        shard, offset = self._place[name]
        raw: Any = block.view(torch.uint8).numpy()
        data = memoryview(raw)
        first = start * block.element_size()
        hasher, count = self._written.get(name, (None, 0)) if first else (xxh3_128(), 0)
        if hasher is not None and count == first:  # in order, as a merge writes
            hasher.update(data)
            self._written[name] = hasher, first + len(data)
        try:
            with self._at(shard) as descriptor:
                files.write_at(descriptor, data, offset + first)
        except OSError as error:
            raise self._failure(error) from error

    def finished(self, name: str, report: dict[str, Any]) -> None:
        """Record that all of a tensor is written, with what is to be told of it. Thread-safe.

        Raises:
            OutputError: the disk is full or fails.
        """
        hasher, count = self._written.pop(name, (xxh3_128(), 0))
        digest = hasher.hexdigest() if count == self._tensors[name].nbytes else None
        with self._changed:
            try:
                self._journal.add(Finished(name, report, digest))
            except OSError as error:
                raise self._failure(error) from error
            self.reports[name] = report
            self._changed.notify_all()

    def _hash_all(self) -> None:
        """The hashing thread: each shard from its start to its end, tensor by tensor as they are finished."""
        buffer = memoryview(bytearray(_HASHED_AT_ONCE))
        try:
            for number, shard in enumerate(self._shards):
                digest, offset, synced = sha256(shard.header), len(shard.header), 0
                for tensor in shard.tensors:
                    with self._changed:
                        self._changed.wait_for(lambda name=tensor.name: self._stopping or name in self.reports)
                    end = offset + tensor.nbytes
                    with self._at(number) as descriptor:
                        while offset < end:
                            if self._stopping:
                                return
                            count = files.read_at(descriptor, buffer[: min(end - offset, len(buffer))], offset)
                            if not count:
                                raise OSError(errno.EIO, f"{shard.file} has become shorter while it was written")
                            digest.update(buffer[:count])
                            offset += count
                            if offset - synced >= _SYNCED_AT_ONCE:
                                # its pages are the next ones to be written to: a large merge takes no memory from others
                                files.sync_and_let_go(descriptor, synced, offset - synced)
                                synced = offset
                with self._at(number) as descriptor:
                    files.sync_open(descriptor)
                self._hashes[shard.file] = digest.hexdigest()
        except Exception as error:  # told by `complete`, in the thread that asks
            self._hash_error = error

    # --- ending -----------------------------------------------------------------------------------------------------

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
                (self.directory / INDEX).write_text(json.dumps(index_of(self._shards), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise self._failure(error) from error
        return self._hashes

    def publish(self) -> None:
        """Give the finished directory its name.

        Raises:
            OutputError: something else has the name, or the disk fails; the same run can be taken up again.
        """
        self._close()
        try:
            files.sync_tree(self.directory)
            kept = self._journal.path.read_bytes()
            self._journal.path.unlink()
            try:
                self._work.publish(self.directory)
            except OSError:
                files.write_whole(self._journal.path, kept)
                raise
        except OSError as error:
            raise self._failure(error) from error

    def discard(self) -> None:
        """Remove what this run has made; what it took over from an earlier one stays, to be gone on with.

        Raises:
            OutputError: the disk fails.
        """
        self._close()
        if self._work.made or not self._earlier:
            self._work.remove()
            return
        try:
            self._journal.begin(self._head, self._earlier)
        except OSError as error:
            raise self._failure(error) from error
        finally:
            self._journal.close()

    def _failure(self, error: OSError) -> OutputError:
        return self._work.failure(error, sum(s.size for s in self._shards))

    def _close(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._hasher.is_alive():
            self._hasher.join()
        for descriptor in self._files:
            os.close(descriptor)
        self._files = []
        self._journal.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._close()
        self._work.release()
