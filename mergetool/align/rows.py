"""The forms of rows that algorithms train on: how each is read, and what was kept and dropped in words."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergetool.data import completions, labelled_rows, preference_rows, prompt_rows
from mergetool.errors import DataError

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class RowForm:
    """One form.

    Attributes:
        name: what a row is, in one word.
        load: of (source, limit, seed): rows as TRL's trainer takes them, and what was kept and dropped in words.
    """

    name: str
    load: Callable[[str | Path, int | None, int], tuple[Rows, str]]

    def read(self, source: str | Path, limit: int | None = None, seed: int = 0) -> tuple[Rows, str]:
        """Rows as TRL's trainer takes them, and what was kept and dropped in words.

        Args:
            source: as `mergetool.data.read_rows` takes it.
            limit: no more than this many usable rows.
            seed: of the order, where the trainer goes through rows as they come.

        Raises:
            DataError: a row has not the form (named by its number), or the rows mix text and messages.
        """
        rows, told = self.load(source, limit, seed)
        key = "prompt" if "prompt" in rows[0] else next(iter(rows[0]))
        if len({type(row[key]) for row in rows}) > 1:
            raise DataError(f"{source}: some rows are text and some are messages", "give all of them in one form")
        return rows, told


def _pairs(source: str | Path, limit: int | None, seed: int) -> tuple[Rows, str]:
    rows, counts = preference_rows(source, limit)
    return rows, str(counts)


def _labelled(source: str | Path, limit: int | None, seed: int) -> tuple[Rows, str]:
    """TRL's KTO goes through the rows in their order, so good and bad are mixed here."""
    rows, counts = labelled_rows(source, limit)
    good = sum(row["label"] for row in rows)
    rows = list(rows)
    random.Random(seed).shuffle(rows)
    return rows, f"{counts}; {good} good and {len(rows) - good} bad"


def _prompts(source: str | Path, limit: int | None, seed: int) -> tuple[Rows, str]:
    rows, counts = prompt_rows(source, limit)
    return rows, str(counts)


def _completions(source: str | Path, limit: int | None, seed: int) -> tuple[Rows, str]:
    """Without the keys that only a measurement needs; bare text stays bare, so that the loss is on all of it."""
    rows = completions(source, limit)
    if all(row["prompt"] == "" for row in rows):
        rows = [{"text": row["completion"]} for row in rows]
    else:
        rows = [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]
    return rows, f"{len(rows)} rows"


PAIRS = RowForm("pairs", _pairs)
LABELLED = RowForm("labelled", _labelled)
COMPLETIONS = RowForm("completions", _completions)
PROMPTS = RowForm("prompts", _prompts)
