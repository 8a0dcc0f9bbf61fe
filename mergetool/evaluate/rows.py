"""The kinds of data rows that metrics read: how each is read from a file, and how it is tokenised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mergetool.data import completions, preferences, prompt_rows
from mergetool.data.tokens import code_completion, code_pair, code_prompt

ANY_ROWS = "prompts"  # the kind that every other kind holds too


@dataclass(frozen=True)
class RowKind:
    """One kind.

    Attributes:
        name: as `Metric.rows` writes it.
        read: of (source, limit): the rows of a data file.
        answers: the columns that hold an answer to the prompt.
        encode: of (tokenizer, row, max_length): the row's tokens; None where it does not fit.
        stored_as: the field of `tasks.Prepared` that keeps the tokens; None: they are not kept.
        side: of a study that its metrics are on; None: either.
    """

    name: str
    read: Callable[[str | Path, int | None], list[dict[str, Any]]]
    answers: tuple[str, ...]
    encode: Callable[[Any, dict[str, Any], int], Any]
    stored_as: str | None = None
    side: str | None = None


def _fitting_prompt(tokenizer: Any, row: dict[str, Any], max_length: int) -> list[int] | None:
    ids = code_prompt(tokenizer, row)
    return ids if len(ids) < max_length else None


def _prompts(source: str | Path, limit: int | None) -> list[dict[str, Any]]:
    return prompt_rows(source, limit)[0]


ROW_KINDS = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            RowKind("preferences", preferences, ("chosen", "rejected"), code_pair, "pairs", "reward"),
            RowKind("completions", completions, ("completion",), code_completion, "completions", "tax"),
            RowKind(ANY_ROWS, _prompts, (), _fitting_prompt),
        )
    }
)
