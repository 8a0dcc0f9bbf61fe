"""Where a run works until it is complete: beside the output, locked, resumable, and published by one rename."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from mergetool import files, reading
from mergetool.checkpoint.manifest import MANIFEST
from mergetool.checkpoint.working_directory import Appeared, WorkingDirectory
from mergetool.errors import OutputError

_RUN, _COMPLETE = "run.json", "complete"
_BY_CONTENT = 2  # the form of run.json since fingerprints follow the content of the models


class Workspace:
    """The directory of a run that is not complete; a context manager.

    Args:
        out: the name that the result will get.
        fingerprint: the run's identity; work of another run is never continued.
        fresh: discard what an interrupted run left.
        ranks: accelerate's PartialState; with several processes only the first one touches the directory.

    Attributes:
        appeared: True where another run has made the output while this one waited; then there is nothing to work in.

    Raises:
        OutputError: another run holds the directory, it belongs to another recipe, or the disk fails. What is there stays.
    """

    def __init__(self, out: Path, fingerprint: str, fresh: bool = False, ranks: Any = None) -> None:
        self.out = Path(out)
        self._work = WorkingDirectory(self.out)
        self.directory = self._work.directory
        self.training = self.directory / "training"  # the trainer's own output: its checkpoints
        self.result = self.directory / "result"
        self.appeared = False
        self._fingerprint, self._fresh = fingerprint, fresh
        self._ranks = ranks
        self._owner = ranks is None or ranks.is_main_process

    def __enter__(self) -> Workspace:
        if self._owner:
            self._claim()
        if self._ranks is not None:
            self._ranks.wait_for_everyone()  # the others see the directory as the first one has put it in order
        self.appeared = self.out.is_dir() and any(self.out.iterdir())  # it cannot appear while the first one has the lock
        return self

    def _claim(self) -> None:
        try:
            self._work.__enter__()
        except Appeared:
            return
        try:
            self._take_over()
        except BaseException as error:
            if self._work.made:
                self._work.remove()
            self._work.release()
            if isinstance(error, OSError):
                raise self._work.failure(error) from error
            raise

    def _take_over(self) -> None:
        path = self.directory / _RUN
        discard = "run again with --fresh to discard it"
        left = None if self._fresh else self._left(path, discard)
        if left is None:
            if self._work.holds_work() and not self._fresh:
                raise OutputError(f"{self.directory}: an interrupted run of another kind", discard)
            self._work.empty()
        elif left.get("form") != _BY_CONTENT:
            raise OutputError(
                f"{self.directory}: an interrupted run of an earlier version, which did not note what its models hold", discard
            )
        elif left.get("fingerprint") != self._fingerprint:
            raise OutputError(f"{self.directory}: an interrupted run with another recipe or other inputs", discard)
        files.write_whole(path, json.dumps({"form": _BY_CONTENT, "fingerprint": self._fingerprint}) + "\n")
        if self.result.exists():
            shutil.rmtree(self.result)  # a result cut short while it was written
        self.training.mkdir(exist_ok=True)

    def _left(self, path: Path, discard: str) -> dict[str, Any] | None:
        """Whose work an interrupted run has left; None where there is none.

        Raises:
            OSError: it cannot be read.
            OutputError: it is damaged.
        """
        try:
            found = reading.parsed_file(path)
        except FileNotFoundError:
            return None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise OutputError(f"{self.directory}: an interrupted run whose {_RUN} is damaged", discard)
        return found

    def rows(self, rank: int) -> Path:
        """An empty directory for the rows of one process, while the run goes on."""
        place = self.directory / f"data-{rank}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        return place

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
            files.sync_tree(self.result)
            self._work.publish(self.result)
        except OSError as error:
            raise OutputError(
                f"{self.out}: cannot be given its name ({error.strerror or error})", f"the result is whole in {self.result}"
            ) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._owner or self.appeared or not self.directory.exists():
            self._work.release()
            return
        try:
            # Nothing to resume from: an error of the user's leaves nothing behind.
            if self.last_checkpoint() is None and not (self.result / MANIFEST).exists():
                self._work.remove()
        except OSError:
            pass  # what is there cannot be looked at just now, so it stays
        finally:
            self._work.release()


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turns a full disk, which each library reports in its own way, into one OutputError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        full = isinstance(error, OSError) and files.disk_is_full(error)
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
    files.sync_tree(checkpoint)
    (checkpoint / _COMPLETE).touch()
    files.sync(checkpoint / _COMPLETE)
    files.sync(checkpoint)
