"""Runs cases one after the other in forked children, and judges what came of each."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from tests.fuzz import cases, forked

_TOGETHER = 25  # cases of one child: a fork of a process with torch in it costs a tenth of a second


@dataclass(frozen=True)
class Verdict:
    """What came of a case.

    Attributes:
        number: of the case.
        kind: what was damaged. about: how. words: the command line.
        verdict: clean, traceback, slow, large, silent, or left (behind).
        code: exit status; None where a signal ended it.
        seconds, growth: as of `forked.Outcome`.
        told: the last of what it wrote, or what is wrong with its success.
    """

    number: int
    kind: str
    about: str
    words: list[str]
    verdict: str
    code: int | None
    seconds: float
    growth: int
    told: str


def run(seed: int, numbers: list[int], corpus: Path, place: Path, only: Collection[str]) -> Iterator[Verdict]:
    """The verdicts of these cases, in their order.

    Args:
        seed: of all cases.
        numbers: which.
        corpus: built. place: where the cases lie while they run.
        only: the kinds of cases.
    """
    want = sha256((corpus / "done" / "model.safetensors").read_bytes()).hexdigest()
    left = list(numbers)
    while left:
        receive, send = os.pipe()
        child = os.fork()
        if not child:
            os.close(receive)
            _serve(seed, left[:_TOGETHER], corpus, place, only, want, send)
        os.close(send)
        for verdict in _collected(receive, child, left[:_TOGETHER], place):
            left.remove(verdict.number)
            yield verdict
        os.close(receive)


def _collected(receive: int, child: int, numbers: list[int], place: Path) -> Iterator[Verdict]:
    """What a child says, line by line; of the case in which it hangs or dies, what can be said from outside."""
    waiting, buffer, begun = list(numbers), b"", time.monotonic()
    case, fault = {"kind": "?", "about": "", "words": []}, ""
    while waiting:
        ready, _, _ = select.select([receive], [], [], max(1.0, forked.PATIENCE - (time.monotonic() - begun)))
        piece = os.read(receive, 1 << 20) if ready else b""
        if not piece:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            took = time.monotonic() - begun
            told = f"no answer after {took:.0f} s" if not ready else f"ended: {os.waitstatus_to_exitcode(status)}\n{fault}"
            told += "".join(forked.written(place / f"{waiting[0]}-log"))[-3000:]
            yield Verdict(waiting[0], **case, verdict="slow" if not ready else "traceback", code=None, seconds=took, growth=0,
                          told=told)  # fmt: skip
            return
        *lines, buffer = (buffer + piece).split(b"\n")
        for line in lines:
            found = json.loads(line)
            if "verdict" in found:
                waiting.pop(0)
                yield Verdict(**found)
                begun = time.monotonic()
            elif "fault" in found:
                fault = found["fault"]
            else:
                case = found
    os.waitpid(child, 0)


def _serve(seed: int, numbers: list[int], corpus: Path, place: Path, only: Collection[str], want: str, send: int) -> None:
    code = 0
    try:
        os.setpgid(0, 0)
        forked.limit()
        environment = dict(os.environ)
        for number in numbers:
            here = place / str(number)
            here.mkdir()
            forked.redirect(place / f"{number}-log")
            faulthandler.dump_traceback_later(forked.PATIENCE - 5, file=2)  # where it hangs
            case = cases.lay_out(seed, number, corpus, here, only)
            facts = {"kind": case.kind, "about": case.about, "words": case.words}
            os.write(send, json.dumps(facts).encode() + b"\n")
            before = {path.name for path in here.iterdir()}
            outcome = _here(case, here, place / f"{number}-log")
            faulthandler.cancel_dump_traceback_later()
            os.environ.clear()
            os.environ.update(environment)
            judged, told = outcome.kind, (outcome.err or outcome.out)[-3000:]
            if judged == "clean" and (problem := _problem(case, outcome, here, before, want)):
                judged, told = problem
            verdict = Verdict(number, **facts, verdict=judged, code=outcome.code, seconds=outcome.seconds,
                              growth=outcome.growth, told=told)  # fmt: skip
            os.write(send, json.dumps(asdict(verdict)).encode() + b"\n")
            if judged == "clean":
                os.chdir(place)
            if judged == "clean":
                shutil.rmtree(here, ignore_errors=True)
    except BaseException:  # a fault of the fuzzer's own
        os.write(send, json.dumps({"fault": traceback.format_exc()[-3000:]}).encode() + b"\n")
        code = 70
    finally:
        os._exit(code)


def _here(case: cases.Case, here: Path, log: Path) -> forked.Outcome:
    """Runs a case in this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    held, began = forked.held(), time.process_time()
    forked.redirect(log)
    os.chdir(here)
    os.environ |= {"MERGETOOL_CACHE": str(here / ".cache-of-the-case"), **case.env}
    code = forked.command(case.words)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    took = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    out, err = forked.written(log)
    return forked.Outcome(code, 0, took, max(0, peak - held) if peak > usage else 0, out, err)


def _problem(case: cases.Case, outcome: forked.Outcome, here: Path, before: set[str], want: str) -> tuple[str, str] | None:
    """What is wrong with a run that was clean: silent, or something left behind."""
    names = {path.name for path in here.iterdir()} - {".cache-of-the-case"}
    out = here / case.out if case.out else None
    if outcome.code == 0:
        if case.expects == cases.REFUSED:
            return "silent", f"accepted: {case.about}"
        made = out / "model.safetensors" if out is not None else None
        if case.expects == cases.SAME and made is not None and sha256(made.read_bytes()).hexdigest() != want:
            return "silent", f"other bytes: {case.about}"
        if made is not None and made.exists() and (untrue := _untrue(made)):
            return "silent", untrue
        new = {name for name in names - before if name.startswith(".")}
        return ("left", f"beside a result: {sorted(new)}") if new else None
    if new := names - before:
        return "left", f"after an error: {sorted(new)}: {outcome.err[-500:]}"
    return None


def _untrue(made: Path) -> str:
    said = json.loads((made.parent / "mergetool.json").read_text(encoding="utf-8"))["outputs_sha256"].get(made.name)
    return "" if said == sha256(made.read_bytes()).hexdigest() else "the weights are not what the manifest says"


def summed(verdicts: list[Verdict]) -> dict[str, dict[str, int]]:
    """Kind of damage -> verdict -> how many."""
    table: dict[str, dict[str, int]] = {}
    for one in verdicts:
        row = table.setdefault(one.kind, {})
        row[one.verdict] = row.get(one.verdict, 0) + 1
    return table
