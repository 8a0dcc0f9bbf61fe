"""Where a run works until it is complete: beside the output, locked, resumable, and published by one rename."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from mergetool.checkpoint.writer import MANIFEST, partial_directory
from mergetool.errors import OutputError

_RUN, _LOCK, _COMPLETE = "run.json", "lock", "complete"


class Workspace:
    """The directory of a run that is not complete; a context manager.

    Args:
        out: the name that the result will get.
        fingerprint: the run's identity; work of another run is never continued.
        fresh: discard what an interrupted run left.
        ranks: accelerate's PartialState; with several processes only the first one touches the directory.

    Raises:
        OutputError: another run holds the directory, or it belongs to another recipe.
    """

    def __init__(self, out: Path, fingerprint: str, fresh: bool = False, ranks: Any = None) -> None:
        self.out = Path(out)
        self.directory = partial_directory(self.out)
        self.training = self.directory / "training"  # the trainer's own output: its checkpoints
        self.result = self.directory / "result"
        self._fingerprint, self._fresh = fingerprint, fresh
        self._guard: int | None = None
        self._ranks = ranks
        self._owner = ranks is None or ranks.is_main_process

    def __enter__(self) -> Workspace:
        if self._owner:
            self._claim()
        if self._ranks is not None:
            self._ranks.wait_for_everyone()  # the others see the directory as the first one has put it in order
        return self

    def _claim(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._guard = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(
                f"{self.out}: cannot be written ({error.strerror or error})", "check the disk and permissions"
            ) from None
        try:
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._release()
            raise OutputError(f"{self.out}: another run is writing it now", "wait for it, or choose another OUT") from None
        try:
            self._take_over()
        except BaseException:
            self._release()
            raise

    def _take_over(self) -> None:
        path = self.directory / _RUN
        left = _read(path)
        if self._fresh or not left:
            self._empty()
        elif left.get("fingerprint") != self._fingerprint:
            raise OutputError(
                f"{self.directory}: an interrupted run with another recipe or other inputs",
                "run again with --fresh to discard it",
            )
        path.write_text(json.dumps({"fingerprint": self._fingerprint}) + "\n")
        shutil.rmtree(self.result, ignore_errors=True)  # a result cut short while it was written
        self.training.mkdir(exist_ok=True)

    def _empty(self) -> None:
        for old in self.directory.iterdir():
            if old.name != _LOCK:
                shutil.rmtree(old) if old.is_dir() else old.unlink()

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that was written to its end; what was cut short is removed."""
        whole: list[tuple[int, Path]] = []
        for path in self.training.glob("checkpoint-*"):
            step = path.name.removeprefix("checkpoint-")
            if step.isdigit() and (path / _COMPLETE).exists():
                whole.append((int(step), path))
            elif self._owner:
                shutil.rmtree(path, ignore_errors=True)
        return max(whole)[1] if whole else None

    def publish(self) -> None:
        """Gives the finished result its name.

        Raises:
            OutputError: something else has taken the name meanwhile, or the disk fails.
        """
        try:
            sync_tree(self.result)
            os.rename(self.result, self.out)
            _sync(self.out.absolute().parent)
        except OSError as error:
            raise OutputError(
                f"{self.out}: cannot be given its name ({error.strerror or error})", f"the result is whole in {self.result}"
            ) from None
        self._release()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._guard is None:
            return
        # Nothing to resume from: an error of the user's leaves nothing behind.
        nothing = self.last_checkpoint() is None and not (self.result / MANIFEST).exists()
        self._release()
        if nothing:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _release(self) -> None:
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turns a full disk, which each library reports in its own way, into one OutputError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        # torch.save and safetensors give the operating system's words, without its number
        if full or "No space left on device" in str(error) or "file write failed" in str(error):
            raise OutputError(
                f"{out}: the disk is full", "make room and run the same command again; the last checkpoint is kept"
            ) from error
        raise


def mark_complete(checkpoint: Path) -> None:
    """Says of a trainer's checkpoint that all of it is on the disk.

    The trainer writes its files under the final name one by one, so the name alone promises nothing after a kill.
    """
    sync_tree(checkpoint)
    with (checkpoint / _COMPLETE).open("w") as file:
        os.fsync(file.fileno())
    _sync(checkpoint)


def sync_tree(directory: Path) -> None:
    """Brings every file below a directory, and the directories themselves, to the disk."""
    for folder, _, names in os.walk(directory):
        for name in names:
            _sync(Path(folder) / name)
        _sync(Path(folder))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
