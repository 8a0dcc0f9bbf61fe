"""Which weights of a run are written, the last ones or those of the best step, and the account that belongs to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mergetool import reading
from mergetool.align.optimizer import merged_so_far, merges_so_far

_ACCOUNT = "merged.json"
_STATE = "trainer_state.json"


def note_amount(checkpoint: Path, optimizer: Any, method: str) -> None:
    """Writes into a trainer's checkpoint how much had been merged when it was made."""
    found = {"merges": merges_so_far(optimizer), "merged_total": merged_so_far(optimizer, method)}
    (checkpoint / _ACCOUNT).write_text(json.dumps(found) + "\n", encoding="utf-8")


def best_checkpoint(trainer: Any) -> Path | None:
    """The checkpoint whose weights the trainer has put into the model at the end; None where it has kept the last ones."""
    best = trainer.state.best_model_checkpoint
    return Path(best) if trainer.args.load_best_model_at_end and best is not None else None


def step_of_checkpoint(checkpoint: Path) -> int:
    """The step that a trainer's checkpoint was made at."""
    return int(checkpoint.name.rpartition("-")[2])


def amount_of(trainer: Any, method: str) -> dict[str, Any]:
    """How often and how much was merged into the weights that the model has now."""
    best = best_checkpoint(trainer)
    if best is None:
        return {"merged_total": merged_so_far(trainer.optimizer, method)}
    return reading.parsed_file(best / _ACCOUNT)


def log_of(log: list[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """The part of a trainer's log that is of the weights of a step: what was logged up to it, and the last evaluation.

    Args:
        log: its last line is the evaluation of these weights, where its `step` says so.
        step: of the weights.
    """
    return [line for line in log if line["step"] <= step]


def date_evaluation(log: list[dict[str, Any]], step: int) -> None:
    """Gives the log's last line, an evaluation of the weights of an earlier step, that step."""
    epochs = [line["epoch"] for line in log if line["step"] == step and "epoch" in line]
    log[-1].update({"step": step, **({"epoch": epochs[0]} if epochs else {})})


def relocate_best(checkpoint: Path) -> None:
    """Lets a trainer that is resumed find its best checkpoint where it lies now: the state has the path of where it lay."""
    path = checkpoint / _STATE
    state = reading.parsed_file(path)
    best = state.get("best_model_checkpoint")
    here = checkpoint.parent / Path(best).name if best else None
    if here is not None and str(here) != best and here.is_dir():
        path.write_text(
            json.dumps({**state, "best_model_checkpoint": str(here)}, indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )
