"""The rows that each algorithm trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mergetool.align.recipe import AlignRecipe
from mergetool.data import completions, labelled_rows, preference_rows, prompt_rows
from mergetool.errors import DataError

FORMS = {"dpo": "pairs", "ipo": "pairs", "kto": "labelled", "sft": "completions", "grpo": "prompts", "raft": "prompts"}


def read_for(recipe: AlignRecipe, place: str | Path, limit: int | None = None) -> tuple[list[dict[str, Any]], str]:
    """Rows in the form that TRL's trainer of the recipe's algorithm takes, and what was kept and dropped in words.

    Raises:
        DataError: a row has not the form (named by its number), or the rows mix text and messages.
    """
    form = FORMS[recipe.algorithm]
    if form == "pairs":
        rows, counts = preference_rows(place, limit)
        told = str(counts)
    elif form == "labelled":
        rows, counts = labelled_rows(place, limit)
        told = f"{counts}; {sum(row['label'] for row in rows)} good and {sum(not row['label'] for row in rows)} bad"
        rows = _shuffled(rows, int(recipe.training.get("seed", 0)))
    elif form == "prompts":
        rows, counts = prompt_rows(place, limit)
        told = str(counts)
    else:
        rows, told = _plain(completions(place, limit)), ""
        told = f"{len(rows)} rows"
    key = "prompt" if "prompt" in rows[0] else next(iter(rows[0]))
    if len({type(row[key]) for row in rows}) > 1:
        raise DataError(f"{place}: some rows are text and some are messages", "give all of them in one form")
    return rows, told


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the keys that only a measurement needs; bare text stays bare, so that the loss is on all of it."""
    if all(row["prompt"] == "" for row in rows):
        return [{"text": row["completion"]} for row in rows]
    return [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]


def _shuffled(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """TRL's KTO goes through the rows in their order, so good and bad are mixed here."""
    import random

    rows = list(rows)
    random.Random(seed).shuffle(rows)
    return rows
