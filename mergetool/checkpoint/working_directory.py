"""Where the work for an output goes until it is complete: a directory beside it, held by one run at a time.

The lock lies beside the directory and not in it, and is held until the output has its name: two runs at once can neither
publish one another's unfinished work nor remove it. One that waited for the lock finds the output there (`Appeared`).

Only one's own is ever removed: what this run has put into a directory that it made. What an earlier run has finished stays
until a run completes it, or someone asks for `--fresh`.
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import TracebackType

from mergetool import files
from mergetool.errors import OutputError, next_step

MARKS = ("journal.jsonl", "run.json")
"""A file of either name says that a directory holds finished work: of a merge, of an alignment."""
_OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE)  # the same for every file
_PATIENCE = 0.3  # seconds; one who has just published needs less to let go


class Appeared(OutputError):
    """The output was given its name by another run while this one waited for the lock."""


def partial_directory(out: Path) -> Path:
    """Where the work for `out` goes until it is complete."""
    return out.parent / f".{out.name}.mergetool-partial"


def lock_file(out: Path) -> Path:
    """Held by the run that works on `out`; it lies there while a run does, and after one was killed."""
    return out.parent / f".{out.name}.mergetool-lock"


class WorkingDirectory:
    """The directory of a run that is not complete; a context manager that holds the lock.

    Args:
        out: the name that the result will get.

    Attributes:
        made: True where there was no such directory, or an empty one, before this run.
    """

    def __init__(self, out: Path) -> None:
        self.out = Path(out)
        self.directory = partial_directory(self.out)
        self.made = False
        self._lock = files.Lock(lock_file(self.out))

    def __enter__(self) -> WorkingDirectory:
        """Take the lock and the directory.

        Raises:
            OutputError: another run has the lock, the output has appeared meanwhile (`Appeared`), or the disk fails.
        """
        try:
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            if not self._lock.take(_PATIENCE):
                raise OutputError(f"{self.out}: another run is writing it now", "wait for it, or choose another name")
            if self.out.exists() and not (self.out.is_dir() and not any(self.out.iterdir())):
                raise Appeared(f"{self.out}: another run has just made it", "run again to see whether it is the same")
            if self.directory.is_symlink():
                raise OutputError(f"{self.directory}: is a link", "remove it; unfinished work lies beside its output")
            self.made = not (self.directory.is_dir() and any(self.directory.iterdir()))
            self.directory.mkdir(exist_ok=True)
        except OSError as error:
            self.release()
            raise self.failure(error) from error
        except BaseException:
            self.release()
            raise
        return self

    def holds_work(self) -> bool:
        """Whether an earlier run has left finished work in it."""
        return any((self.directory / mark).exists() for mark in MARKS)

    def empty(self) -> None:
        """Remove all that is in the directory: what was asked for, or is of no worth."""
        for old in self.directory.iterdir():
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            else:
                old.unlink()
        self.made = True

    def remove(self) -> None:
        """Remove the directory; only what is this run's own may be in it."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def publish(self, result: Path) -> None:
        """Give a finished directory the output's name, remove what is left, and let go.

        Args:
            result: the working directory itself or a directory in it; brought to the disk already.

        Raises:
            OSError: something else has the name, or the disk fails; nothing has changed then.
        """
        files.give_name(result, self.out)
        self.remove()
        self.release()

    def release(self) -> None:
        """Let go of the lock; twice is once."""
        self._lock.release()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def failure(self, error: OSError, need: int | None = None) -> OutputError:
        """What an error of the system means, in one line.

        Args:
            error: what was raised.
            need: bytes that the result takes.
        """
        if files.disk_is_full(error):
            room = f"; {need:,} bytes are needed" if need is not None else ""
            return OutputError(f"{self.out}: the disk is full{room}", "make room and run again")
        hint = next_step(error)
        if error.errno not in _OF_THE_PROCESS and error.filename and Path(error.filename) == self._lock.path:
            hint = f"check the permissions of {self._lock.path}"
        return OutputError(f"{self.out}: cannot be written ({error.strerror or error})", hint)
