"""What `--task` names: a file of rows, or a benchmark of lm-evaluation-harness; and the metric to take on it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergetool.config.sources import LAB, looks_like_hub_id, resolve_source
from mergetool.data import read_rows
from mergetool.data.texts import completions
from mergetool.errors import RecipeError
from mergetool.evaluate.metrics import METRICS

LOOKED_AT = 64  # rows that say of which kind a file is
SHORT = 100  # letters of an answer that a model may be expected to give word for word


def entries_of(tasks: Sequence[str], here: str | Path = ".") -> list[dict[str, Any]]:
    """A metric entry for each task, as a study writes it, under names of their own.

    Args:
        tasks: FILE, FILE:METRIC, `lab:NAME`, a data set of the Hub, or TASK[:METRIC[:FILTER]] of lm-evaluation-harness.
        here: where relative paths start.

    Raises:
        RecipeError: there is no such file or metric. DataError: the rows are of no known kind.
    """
    if not tasks:
        raise RecipeError("no task", "give --task FILE: rows of what must work")
    found: list[dict[str, Any]] = []
    for text in tasks:
        entry = _entry(text, here)
        taken = [one["name"] for one in found]
        if entry["name"] in taken:
            entry["name"] += f"-{sum(name.startswith(entry['name']) for name in taken) + 1}"
        found.append(entry)
    return found


def _entry(text: str, here: str | Path) -> dict[str, Any]:
    source, colon, metric = text.rpartition(":")
    if not colon or metric not in METRICS or source in ("", LAB.rstrip(":")):
        source, metric = text, ""
    place = resolve_source(source, here)
    if isinstance(place, Path) and not place.exists():
        if re.search(r"[/\\.]", source):  # plainly a path
            raise RecipeError(f"--task {text}: no such file", "check the path; write FILE or FILE:METRIC")
        return _benchmark(text)
    metrics = [metric] if metric else _metrics(place if isinstance(place, Path) else source)
    if (asked := METRICS[metrics[0]].asks) is not None:
        raise RecipeError(f"--task {text}: {metrics[0]} needs {asked}", "write a study: mergetool init prints one")
    whole = str(place.absolute()) if isinstance(place, Path) and not source.startswith(LAB) else source
    return {"name": _label(source), "metrics": metrics, "data": whole}


def _benchmark(text: str) -> dict[str, Any]:
    from mergetool.evaluate.harness import HarnessTask

    name = re.sub(r"\W+", "_", text.partition(":")[0])
    try:
        HarnessTask(name, (text,)).metrics()
    except RecipeError as error:
        raise RecipeError(f"--task {text}: neither a file nor a benchmark ({error.message})", error.hint) from None
    return {"name": name, "tasks": [text]}


def _metrics(source: str | Path) -> list[str]:
    """The metrics that a file's rows allow; the first is the one that counts.

    An exact answer where every row has a short one, else the likelihood of what should be written: it needs no answers to
    be generated, and tells models apart with far fewer rows.
    """
    first = read_rows(source, LOOKED_AT)
    if {"chosen", "rejected"} <= first[0].keys():
        return ["reward_margin", "preference_accuracy"]
    rows = completions(source, LOOKED_AT)
    answers = [row["completion"] for row in rows]
    texts = [one if isinstance(one, str) else str(one[-1].get("content", "")) for one in answers]
    if all(row["prompt"] for row in rows) and max(map(len, texts)) <= SHORT:
        return ["exact_match", "nll"]
    return ["nll"]


def _label(source: str) -> str:
    if looks_like_hub_id(source) and not Path(source).exists():
        return re.sub(r"[^\w-]+", "_", source.partition(":")[0].rpartition("/")[2])
    return re.sub(r"[^\w-]+", "_", Path(source.removeprefix(LAB)).name.partition(".")[0]) or "task"
