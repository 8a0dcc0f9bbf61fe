"""Runs the command line in forked children of one warm process: a run costs what it does, and not its imports.

A child has limits of memory, time and file size, so that whatever it is fed ends; what it did is an `Outcome`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SECONDS = 10.0
"""Of processor time, which does not grow on a busy machine; a run that takes more is slow."""
PATIENCE = 90.0
"""Seconds of the clock; a run that takes more hangs."""
GROWTH = 1 << 30
"""Bytes of memory that a run may need beyond what its parent has."""
_COMMAND: list = []  # the tree of commands, which takes a tenth of a second to make


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        code: its exit status; None where a signal ended it.
        signal: that ended it, or 0.
        seconds: of processor time that it took.
        growth: of its memory beyond its parent's, bytes at the peak.
        out, err: what it wrote.
    """

    code: int | None
    signal: int
    seconds: float
    growth: int
    out: str
    err: str

    @property
    def clean(self) -> bool:
        """Success, or one line of the user's error."""
        if self.code == 0:
            return True
        lines = [line for line in self.err.splitlines() if line.startswith("mergetool: ")]
        return self.code == 2 and (len(lines) == 1 or "Usage:" in self.err + self.out) and "Traceback" not in self.err

    @property
    def slow(self) -> bool:
        """It hung, or would have."""
        return self.seconds > SECONDS or self.signal == signal.SIGALRM

    @property
    def large(self) -> bool:
        """It took more memory than it may."""
        return self.growth > GROWTH or "not enough memory" in self.err or "MemoryError" in self.err

    @property
    def kind(self) -> str:
        """What it counts as: clean, traceback, slow or large."""
        return "slow" if self.slow else "large" if self.large else "clean" if self.clean else "traceback"


def warm(training: bool = True) -> None:
    """Import all that a run would import, once, in the parent.

    Args:
        training: what trains and draws, too, which takes as long as all the rest.
    """
    import pyarrow.parquet  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401
    import typer.main
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    import mergetool.cli.main
    import mergetool.evaluate.run
    import mergetool.fingerprints
    import mergetool.hub.push
    import mergetool.merge.inspection
    import mergetool.merge.run
    import mergetool.recipe_kinds
    import mergetool.study.execution.run
    import mergetool.study.report.outputs

    if training:
        import matplotlib.pyplot  # noqa: F401
        import trl.trainer.dpo_trainer  # noqa: F401

    for language in mergetool.recipe_kinds._LANGUAGES.values():
        language()
    torch.set_num_threads(1)
    _COMMAND.append(typer.main.get_command(mergetool.cli.main.app))
    gc.collect()
    gc.freeze()  # what is not looked at again is not copied into each child


def start(words: Sequence[str], cwd: Path, log: Path, env: Mapping[str, str], before: Callable[[], None] | None = None) -> int:
    """Fork a child that runs the command line; its process id.

    Args:
        words: of the command line, without the program's name.
        cwd: where it runs.
        log: what it writes goes to log.out and log.err.
        env: beside the parent's own variables.
        before: called in the child before the command runs.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        redirect(log)
        os.chdir(cwd)
        os.environ.update(env)
        if before is not None:
            before()
        code = command(words)
    except BaseException:
        os.write(2, traceback.format_exc().encode(errors="backslashreplace"))
    finally:
        os._exit(code)


def redirect(log: Path) -> None:
    """What this process writes goes to log.out and log.err from now on; it reads nothing."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, end in ((1, ".out"), (2, ".err")):
        descriptor = os.open(f"{log}{end}", flags)
        os.dup2(descriptor, number)
        os.close(descriptor)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115


def command(words: Sequence[str]) -> int:
    """Run the command line in this process; its exit status."""
    import typer.main

    from mergetool.cli.main import main

    sys.argv = ["mergetool", *words]
    if _COMMAND:
        typer.main.get_command = lambda app: _COMMAND[0]
    try:
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 120
    return code


def limit(memory: int = GROWTH + (GROWTH >> 1)) -> None:
    """Let this process have so many bytes of memory beyond what it has."""
    most = _status("VmData") + memory
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def held() -> int:
    """Bytes of memory of this process."""
    return _status("VmRSS")


def written(log: Path) -> tuple[str, str]:
    """What went to log.out and log.err, which are removed."""
    found = []
    for end in (".out", ".err"):
        path = Path(f"{log}{end}")
        found.append(path.read_text(encoding="utf-8", errors="replace") if path.exists() else "")
        path.unlink(missing_ok=True)
    return found[0], found[1]


def _limits(memory: int, seconds: float) -> Callable[[], None]:
    def set_them() -> None:
        limit(memory)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    return set_them


def run(
    words: Sequence[str],
    cwd: Path,
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    memory: int = GROWTH + (GROWTH >> 1),
    seconds: float = PATIENCE,
    before: Callable[[], None] | None = None,
) -> Outcome:
    """Run the command line in a child with limits, and wait for it.

    Args:
        words, cwd, log, env: as `start`.
        memory: bytes that it may have beyond its parent's.
        seconds: after which it is ended.
        before: called in the child, after the limits are set.
    """
    limits = _limits(memory, seconds)

    def both() -> None:
        limits()
        if before is not None:
            before()

    at_first = held()
    child = start(words, cwd, log, env or {}, both)
    _, status, used = os.wait4(child, 0)
    took = used.ru_utime + used.ru_stime
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it has started
    code = os.waitstatus_to_exitcode(status)
    growth = max(0, used.ru_maxrss * 1024 - at_first)
    out, err = written(log)
    return Outcome(code if code >= 0 else None, max(0, -code), took, growth, out, err)


def _status(key: str) -> int:
    """A number of bytes of /proc/self/status."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        line = next(line for line in file if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def shared_out(folder: Path, processes: int, work: Callable[[int], Iterable[Any]], what: str) -> list[dict[str, Any]]:
    """What forked processes found: the fields of the dataclasses that each one's work yields, in the order of the processes.

    Args:
        folder: where each process notes what it finds.
        processes: how many; `work` is called with the number of each.
        what: names the program where a process of its own fails.
    """
    logs, children = [folder / f"found-{one}.jsonl" for one in range(processes)], []
    for one, log in enumerate(logs):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            with log.open("w", encoding="utf-8") as file:
                for found in work(one):
                    file.write(json.dumps(asdict(found)) + "\n")
                    file.flush()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert not any(codes), f"{what} itself has failed"
    return [json.loads(line) for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
