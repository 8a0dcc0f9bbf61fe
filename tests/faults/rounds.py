"""A round: a command is disturbed up to three times, then left alone; what it makes is what it makes undisturbed."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.scenarios import Scenario
from tests.fuzz import forked

PATIENCE = 300.0  # seconds of the clock; a run that takes more hangs
SIGNALS = {"kill": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "SIGHUP": signal.SIGHUP}
FAULTS = (*SIGNALS, "STOP+CONT", "file size", "full disk")


@dataclass
class Round:
    """What came of a round.

    Attributes:
        scenario: its name.
        faults: what was done to it.
        problems: what should not have been; empty where all is well.
        seconds: of the clock. growth: of memory beyond the parent's, bytes at the peak.
    """

    scenario: str
    faults: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    growth: int = 0


@dataclass(frozen=True)
class _End:
    code: int
    growth: int
    err: str


class Runner:
    """Runs a scenario's command in forked children.

    Args:
        root: holds the inputs; the command runs there.
        place: where rounds have their directories.
    """

    def __init__(self, root: Path, place: Path) -> None:
        self.root, self.place = root, place
        self._known: dict[str, tuple[dict[str, Any], float]] = {}
        self._mounts = _can_mount(place)

    def undisturbed(self, scenario: Scenario) -> tuple[dict[str, Any], float]:
        """(what the output holds, the seconds that it takes), found once."""
        if scenario.name not in self._known:
            here = self.place / f"reference of {scenario.name}"
            here.mkdir()
            began = time.monotonic()
            end = self._wait(self._start(scenario, here), here)
            assert end.code == 0, end.err
            self._known[scenario.name] = scenario.content(here / scenario.out), time.monotonic() - began
        return self._known[scenario.name]

    def round(self, scenario: Scenario, rng: random.Random, name: str) -> Round:
        """One round in a directory of its own, which is removed where all went well."""
        want, takes = self.undisturbed(scenario)
        here = self.place / name
        here.mkdir()
        done, began = Round(scenario.name), time.monotonic()
        if scenario.at_once > 1:
            self._together(scenario, rng, here, done, want, takes)
        else:
            for _ in range(rng.choice([1, 1, 2, 3])):
                fault = rng.choice(FAULTS)
                done.faults.append(fault)
                self._disturbed(scenario, fault, rng, here, done, takes)
                self._look(scenario, here, done, want)
        end = self._wait(self._start(scenario, here), here)
        done.growth = max(done.growth, end.growth)
        if end.code != 0:
            done.problems.append(f"the last run: exit {end.code}: {end.err[-1500:]}")
        elif (got := scenario.content(here / scenario.out)) != want:
            wrong = [key for key in {*got, *want} if got.get(key) != want.get(key)]
            done.problems.append(f"other bytes: {sorted(wrong)[:5]}")
        if left := sorted({path.name for path in here.iterdir()} - {scenario.out}):
            done.problems.append(f"left behind: {left}")
        done.seconds = time.monotonic() - began
        if not done.problems:
            shutil.rmtree(here)
        return done

    def _disturbed(self, scenario: Scenario, fault: str, rng: random.Random, here: Path, done: Round, takes: float) -> None:
        if fault == "full disk" and not self._mounts:
            fault = "file size"
        if fault == "full disk":
            self._on_a_full_disk(scenario, rng, here, done)
            return
        size = 1_500 + int(rng.choice([2_000, 20_000, 60_000]) * rng.random())  # what is said goes to a file, too
        limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))) if fault == "file size" else None
        child = self._start(scenario, here, limit)
        if fault != "file size":
            time.sleep(rng.random() * takes * 1.1)
            with contextlib.suppress(ProcessLookupError):
                if fault == "STOP+CONT":
                    os.killpg(child, signal.SIGSTOP)
                    time.sleep(0.05)
                    os.killpg(child, signal.SIGCONT)
                else:
                    os.killpg(child, SIGNALS[fault])
        self._judge(self._wait(child, here), fault, done)

    def _on_a_full_disk(self, scenario: Scenario, rng: random.Random, here: Path, done: Round) -> None:
        """On a file system of its own with so many pages; what is left there goes on with room."""
        disk = self.place / f"{here.name}-disk"
        disk.mkdir()
        pages = rng.randrange(1, 30)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={4 * pages}k", "tmpfs", str(disk)], check=True)
        try:
            for path in here.iterdir():  # it begins anew there
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            self._judge(self._wait(self._start(scenario, disk), disk), f"full disk of {pages} pages", done)
            for path in disk.iterdir():  # times and inodes are others now: of the work that is left, its content decides
                if path.is_dir():
                    shutil.copytree(path, here / path.name, symlinks=True, dirs_exist_ok=True)
                else:
                    shutil.copyfile(path, here / path.name)
        finally:
            subprocess.run(["umount", str(disk)], check=True)
            disk.rmdir()

    def _together(
        self, scenario: Scenario, rng: random.Random, here: Path, done: Round, want: dict[str, Any], takes: float
    ) -> None:
        children = []
        for _ in range(scenario.at_once):
            children.append(self._start(scenario, here, log=f"{len(children)}"))
            time.sleep(rng.random() * takes * 0.3)
        if rng.random() < 0.5:
            done.faults.append("kill of one")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(rng.choice(children), signal.SIGKILL)
        for number, child in enumerate(children):
            self._judge(self._wait(child, here, f"{number}"), "at once", done)
        self._look(scenario, here, done, want)

    def _look(self, scenario: Scenario, here: Path, done: Round, want: dict[str, Any]) -> None:
        """An output that is there is whole."""
        out = here / scenario.out
        if scenario.appears and out.exists() and scenario.content(out) != want:
            done.problems.append(f"half an output after {done.faults[-1:]}")

    def _judge(self, end: _End, fault: str, done: Round) -> None:
        done.growth = max(done.growth, end.growth)
        if end.code == -signal.SIGALRM:
            done.problems.append(f"hung after {fault}: {end.err[-1500:]}")
        elif _has_traceback(end.err) or end.code not in (0, 2, 130, 143, *(-number for number in SIGNALS.values())):
            done.problems.append(f"after {fault}: exit {end.code}: {end.err[-1500:]}")

    def _start(self, scenario: Scenario, here: Path, before: Callable[[], None] | None = None, log: str = "") -> int:
        words = [str(here / scenario.out) if word == "OUT" else word for word in scenario.words]

        def prepare() -> None:
            for number in SIGNALS.values():
                if number != signal.SIGKILL:
                    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(PATIENCE))
            if before is not None:
                before()

        return forked.start(words, self.root, self._log(here, log), {}, prepare)

    def _wait(self, child: int, here: Path, log: str = "") -> _End:
        _, status, used = os.wait4(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        growth = max(0, used.ru_maxrss * 1024 - forked.held())
        return _End(os.waitstatus_to_exitcode(status), growth, forked.written(self._log(here, log))[1])

    def _log(self, here: Path, log: str) -> Path:
        return self.place / f"{here.name}-log{log}"


def _has_traceback(err: str) -> bool:
    """Whether a traceback ended it; what Python tells of an interruption in a place where it cannot be raised is none."""
    return "Traceback" in err and "Exception ignored" not in err


def _can_mount(place: Path) -> bool:
    """Whether this user may make a small file system."""
    trial = place / "mount"
    trial.mkdir()
    try:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(trial)], capture_output=True)
        if made.returncode == 0:
            subprocess.run(["umount", str(trial)], check=True)
        return made.returncode == 0
    except OSError:
        return False
    finally:
        trial.rmdir()
