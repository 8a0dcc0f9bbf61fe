"""Rows as mere inputs: what a model reads in a pass that scores nothing, from any form of row."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from mergetool.data.messages import Text, carried
from mergetool.data.pairs import preference_rows
from mergetool.data.prompts import prompt_rows
from mergetool.data.rows import numbered_rows
from mergetool.data.texts import completions

_WHOLE = ("completion", "answer", "messages", "text")


def input_rows(source: str | Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Reads rows whose labels do not matter.

    Known forms: those of `completions`; preference pairs, of which the chosen side is read; prompts alone.

    Args:
        source: as read_rows takes it.
        limit: no more than this many rows.

    Returns:
        Rows with prompt and completion, and what goes to the chat template; the completion is empty for a prompt alone.

    Raises:
        DataError: a row is not of its file's form (named by its number), or no row is usable.
    """
    _, first = next(islice(numbered_rows(source), 1))
    if "chosen" in first:
        return [_row(row, row["chosen"]) for row in preference_rows(source, limit)[0]]
    if any(key in first for key in _WHOLE):
        return [_row(row, row["completion"]) for row in completions(source, limit)]
    return [_row(row, "") for row in prompt_rows(source, limit)[0]]


def _row(row: dict[str, Any], completion: Text) -> dict[str, Any]:
    return {"prompt": row["prompt"], "completion": completion, **carried(row)}
