"""Rows whose outputs should stay: `merging.rows` of a recipe, their tokens, and the batches that are drawn of them.

The opponents of null-space merging learn from the same rows that `mergetool calibrate` reads, and from their answers too.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from mergetool.activations.answers import Batch, batch_of, code_answers
from mergetool.checkpoint.content import sha256_of
from mergetool.config.sources import resolve_source
from mergetool.data.inputs import input_rows
from mergetool.data.rows import data_commit
from mergetool.data.tokens import Coded
from mergetool.errors import CheckpointError, DataError
from mergetool.fingerprints import digest

MAX_LENGTH = 1024


class Rows(BaseModel):
    """`merging.rows`.

    Attributes:
        data: a file, `lab:NAME`, a Hub id `org/name[:split]`, or a list of them.
        limit: no more than this many rows of each.
        max_length: tokens of prompt and answer; what is longer is cut at the end. Where it is left out, data.max_length
            holds, else 1024.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    data: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)]
    limit: Annotated[int, Field(gt=0)] | None = None
    max_length: Annotated[int, Field(gt=1)] | None = None

    @property
    def names(self) -> list[str]:
        """The sources as they are written."""
        return [self.data] if isinstance(self.data, str) else self.data

    def sources(self, directory: Path) -> list[Path | str]:
        """The sources as paths, or as Hub ids; relative paths start from `directory`."""
        return [resolve_source(name, directory) for name in self.names]

    def identities(self, directory: Path) -> list[str]:
        """A hash of what each source holds now; of a data set of the Hub, of its commit.

        Raises:
            DataError: there is no such file, or the Hub refuses.
        """
        try:
            return [
                sha256_of(source) if isinstance(source, Path) else digest([source, data_commit(source)])
                for source in self.sources(directory)
            ]
        except CheckpointError as error:
            raise DataError(error.message, "check the path in `merging.rows`") from None

    def read(self, directory: Path) -> list[dict[str, Any]]:
        """All rows, each with a prompt (empty for running text) and an answer, in the order of the sources.

        Raises:
            DataError: a source is missing, or a row is of no known form or has no answer.
        """
        return [row for rows in self.read_each(directory) for row in rows]

    def read_each(self, directory: Path) -> list[list[dict[str, Any]]]:
        """The rows of each source, as `read` gives them together."""
        found: list[list[dict[str, Any]]] = []
        for source in self.sources(directory):
            rows = input_rows(source, self.limit)
            if any(not row["completion"] for row in rows):
                raise DataError(
                    f"merging.rows: {source}: prompts without answers",
                    "give rows whose answers should stay ('prompt' and 'completion', 'question' and 'answer', 'messages'), "
                    "or 'text'",
                )
            found.append(rows)
        return found


@dataclass(frozen=True)
class Stay:
    """The rows of a run, tokenised.

    Attributes:
        rows: prompt and answer of each, as token ids.
        dropped: rows whose prompt alone fills the length.
        sizes: how many of them each source has given, in order; they are one set where nothing is given.
    """

    rows: tuple[Coded, ...]
    dropped: int = 0
    sizes: tuple[int, ...] = ()

    @property
    def sets(self) -> list[tuple[Coded, ...]]:
        """The rows of each source."""
        ends = list(itertools.accumulate(self.sizes or (len(self.rows),)))
        return [self.rows[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    @property
    def tokens(self) -> int:
        """Tokens of answers, over all rows."""
        return sum(row.length for row in self.rows)

    def account(self, rows: Rows, directory: Path) -> dict[str, Any]:
        """What mergetool.json and the model card say of them: names and not places, and what they hold."""
        names = [source.name if isinstance(source, Path) else source for source in rows.sources(directory)]
        return {"of": names, "content": rows.identities(directory), "rows": len(self.rows), "tokens": self.tokens}

    def __str__(self) -> str:
        lost = f" (dropped: {self.dropped}, their prompt fills max_length)" if self.dropped else ""
        return f"{len(self.rows)} rows that should stay, {self.tokens} tokens of answers{lost}"

    def drawn(self, start: int, count: int, seed: int) -> list[Coded]:
        """Draws `start` to `start + count` of an endless sequence: all rows in a random order, then in another one, ..."""
        size = len(self.rows)
        orders: dict[int, list[int]] = {}
        found = []
        for draw in range(start, start + count):
            turn, place = divmod(draw, size)
            if turn not in orders:
                orders[turn] = list(range(size))
                random.Random(f"rows {seed} {turn}").shuffle(orders[turn])
            found.append(self.rows[orders[turn][place]])
        return found

    def batch(self, number: int, size: int, seed: int, rank: int = 0, ranks: int = 1) -> Batch:
        """The batch of one micro step on one rank: a function of its number, so that a resumed run draws what it would have.

        Args:
            number: of the micro step in the run, from 0.
            size: rows of a batch on each rank.
            seed: of the order.
            rank, ranks: which process this is, of how many; together they draw what one process draws of a batch `ranks`
                times as large.
        """
        every = self.drawn(number * size * ranks, size * ranks, seed)
        return batch_of(every[rank * size : (rank + 1) * size], sum(row.length for row in every))


def tokenised(rows: Sequence[dict[str, Any]], tokenizer: Any, max_length: int, sizes: Sequence[int] = ()) -> Stay:
    """Prompt and answer through the chat template, as rows of SFT are; of running text every token is an answer's.

    Args:
        rows: as Rows.read gives them.
        tokenizer: of theta_s.
        max_length: tokens of prompt and answer; what is longer is cut at the end.
        sizes: how many of the rows each source has given, in order.

    Raises:
        DataError: the rows are conversations and there is no chat template, or no row has an answer within `max_length`.
        CheckpointError: the chat template refuses a row.
    """
    coded = code_answers(rows, tokenizer, max_length, "merging.rows", "the SFT model")
    kept = tuple(row for row in coded if row is not None)
    ends = list(itertools.accumulate(sizes))
    each = (coded[start:end] for start, end in zip([0, *ends], ends, strict=False))
    return Stay(kept, len(coded) - len(kept), tuple(sum(row is not None for row in part) for part in each))
