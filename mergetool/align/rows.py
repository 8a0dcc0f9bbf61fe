"""The forms of rows that algorithms train on: how each is read, and what was kept and dropped in words."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergetool.data.counts import Counts, Tally
from mergetool.data.labelled import labelled
from mergetool.data.pairs import pairs
from mergetool.data.prompts import prompts
from mergetool.data.supervised import supervised
from mergetool.errors import DataError

Rows = list[dict[str, Any]]

_TAKEN = frozenset({"prompts", "completions"})
_SPOKEN = ("prompt", "messages", "completion", "chosen", "rejected")


@dataclass(frozen=True)
class RowForm:
    """One form.

    Attributes:
        name: what a row is, in one word.
        stream: of (source, tally, limit, column of running text): rows as TRL's trainer takes them, one by one.
        words: what became of the rows.
        mixed: whether the rows are mixed by the seed here, since the trainer goes through them in their order.
    """

    name: str
    stream: Callable[[str | Path, Tally, int | None, str], Iterator[dict[str, Any]]]
    words: Callable[[Counts], str] = str
    mixed: bool = False

    def reading(self, source: str | Path, limit: int | None = None, text: str = "text") -> Reading:
        """The rows of a source, to be gone through once.

        Args:
            source: as `mergetool.data.read_rows` takes it.
            limit: no more than this many usable rows.
            text: the column that running text is in.
        """
        return Reading(self, source, limit, text)

    def read(self, source: str | Path, limit: int | None = None, seed: int = 0, text: str = "text") -> tuple[Rows, str]:
        """Rows as TRL's trainer takes them, in their order, and what was kept and dropped in words.

        Args:
            source, limit, text: as in `reading`.
            seed: of the order, where the trainer goes through rows as they come.

        Raises:
            DataError: a row has not the form (named by its number), or the rows mix text and messages.
        """
        reading = self.reading(source, limit, text)
        rows = list(reading)
        return [rows[place] for place in self.order(len(rows), seed)], reading.told()

    def order(self, count: int, seed: int) -> list[int] | range:
        """The order that rows are trained on in, before the trainer's own."""
        if not self.mixed:
            return range(count)
        places = list(range(count))
        random.Random(seed).shuffle(places)
        return places


@dataclass
class Reading:
    """Rows of one source while they are read; when they are, `told` says what became of them."""

    form: RowForm
    source: str | Path
    limit: int | None
    text: str
    tally: Tally = field(default_factory=Tally)
    labels: list[int] = field(default_factory=lambda: [0, 0])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        spoken: bool | None = None
        for row in self.form.stream(self.source, self.tally, self.limit, self.text):
            now = is_conversation(row)
            if spoken is not None and now != spoken:
                raise DataError(f"{self.source}: some rows are text and some are messages", "give all of them in one form")
            spoken = now
            if "label" in row and self.form.mixed:
                self.labels[bool(row["label"])] += 1
            yield row

    def told(self) -> str:
        """What was kept and dropped, in words."""
        words = self.form.words(self.tally.counts())
        return f"{words}; {self.labels[1]} good and {self.labels[0]} bad" if any(self.labels) else words


def is_conversation(row: Mapping[str, Any]) -> bool:
    """Whether a row is made of messages."""
    return any(isinstance(row.get(key), list) for key in _SPOKEN)


def text_column(training: Mapping[str, Any]) -> str:
    """The column that a recipe's `training` reads running text from."""
    return str(training.get("dataset_text_field") or "text")


def _rows(counts: Counts) -> str:
    return f"{counts.kept} rows{counts.not_read()}"


PAIRS = RowForm("pairs", lambda source, tally, limit, text: pairs(source, tally, limit))
LABELLED = RowForm("labelled", lambda source, tally, limit, text: labelled(source, tally, limit), mixed=True)
COMPLETIONS = RowForm("completions", supervised, _rows)


def _prompts(source: str | Path, tally: Tally, limit: int | None, text: str) -> Iterator[dict[str, Any]]:
    """Prompts whose columns a reward can be given beside what TRL gives it."""
    for row in prompts(source, tally, limit):
        if taken := sorted(_TAKEN & row.keys()):
            raise DataError(
                f"{source}: a column is called '{taken[0]}', which a reward is given by TRL under that name", "rename it"
            )
        yield row


PROMPTS = RowForm("prompts", _prompts)
