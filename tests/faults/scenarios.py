"""What is disturbed: a command, its output, and what of the output must be the same bytes every time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.fuzz import corpus

_PASSING = {"metrics.jsonl", "training.png", "README.md", "mergetool.json", "training_args.bin"}
"""Files of an alignment that hold times, or are drawn."""


def files_of(out: Path) -> dict[str, str]:
    """Every file of an output -> its hash."""
    if out.is_file():
        return {"": sha256(out.read_bytes()).hexdigest()}
    found = sorted(path for path in out.rglob("*") if path.is_file())
    return {path.relative_to(out).as_posix(): sha256(path.read_bytes()).hexdigest() for path in found}


def without_times(out: Path) -> dict[str, str]:
    """As `files_of`, of an alignment: that what holds times is there, but not what it says."""
    return {name: "" if name in _PASSING else digest for name, digest in files_of(out).items()}


def scores_of(out: Path) -> dict[str, Any]:
    """Candidate -> its scores, of a study; and the files that a finished one has."""
    lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines() if (out / "results.jsonl").is_file() else []
    rows = {}
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # cut by the fault; the next run begins a new line
        rows[row["name"]] = json.dumps(row["scores"], sort_keys=True)
    return {**rows, "files": sorted(path.name for path in out.iterdir() if path.name not in ("errors", "verdicts.jsonl"))}


@dataclass(frozen=True)
class Scenario:
    """A command that is disturbed.

    Attributes:
        name: in the table.
        words: of the command; OUT stands for its output.
        share: of the rounds.
        content: what of the output is compared.
        out: the output's name.
        at_once: runs into one output at the same time; more than one are not disturbed otherwise.
        appears: whether the output must not be seen before it is complete.
        trains: whether it trains or draws.
    """

    name: str
    words: tuple[str, ...]
    share: int
    content: Callable[[Path], dict[str, Any]] = files_of
    out: str = "out"
    at_once: int = 1
    appears: bool = True
    trains: bool = False


_MERGE = ("merge", "merge.yaml", "OUT", "--threads", "2")

SCENARIOS = (
    Scenario("merge", _MERGE, 36),
    Scenario("sharded merge", (*_MERGE, "--shard-size", "4kB"), 10),
    Scenario("sweep", (*_MERGE, "--sweep", "density=0.3,0.6"), 10, appears=False),
    Scenario("adapter", (*_MERGE, "--adapter", "--rank", "4"), 6),
    Scenario("two at once", _MERGE, 12, at_once=2),
    Scenario("five at once", _MERGE, 10, at_once=5),
    Scenario("calibrate", ("calibrate", "sft", "OUT", "--data", "rows.jsonl", "--rank", "4"), 6, out="out.safetensors"),
    Scenario("ama", ("ama", "ama.yaml", "OUT", "--device", "cpu"), 4, out="out.yaml", trains=True),
    Scenario("align", ("align", "align.yaml", "OUT"), 4, without_times, trains=True),
    Scenario("compare", ("compare", "study.yaml", "OUT", "--device", "cpu"), 2, scores_of, appears=False, trains=True),
)


def build(root: Path) -> None:
    """The corpus, with recipes that take a moment: there is something to disturb."""
    corpus.build(root, measured=False)
    for model in ("base", "sft", "rlhf"):
        (root / model / "generation_config.json").write_text(json.dumps({"eos_token_id": 1}))
    (root / "ama.yaml").write_text(json.dumps({**corpus.AMA, "alpha": 0.3, "training": {"steps": 3, "batch_size": 4}}))
    training = {**corpus.ALIGN["training"], "max_steps": 3, "save_steps": 1}
    (root / "align.yaml").write_text(json.dumps({**corpus.ALIGN, "training": training}))
