"""Calibration rows: from any form of row to the token ids that a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergetool.activations.answers import code_answers
from mergetool.data import input_rows
from mergetool.data.tokens import Coded, code_inputs
from mergetool.errors import CheckpointError, DataError
from mergetool.hub.loading import load_tokenizer, model_directory

MAX_LENGTH = 1024
_UNKNOWN = 0.5  # of the tokens: rows in another tokenizer's language


def calibration_rows(
    model: str | Path, sources: Sequence[str | Path], limit: int | None, max_length: int
) -> tuple[list[tuple[int, ...]], dict[str, int]]:
    """Token ids of every row, and the counts of rows and tokens; no weights are read.

    Raises:
        DataError: no row has a token, the tokenizer gives ids that the model does not have, or knows few of the words.
    """
    tokenizer = load_tokenizer(model)
    rows = [row for source in sources for row in input_rows(source, limit)]
    where = ", ".join(shown(source) for source in sources)
    if any(isinstance(row["prompt"], list) for row in rows) and not tokenizer.chat_template:
        raise DataError(
            f"{where}: the rows are conversations, and the tokenizer of {model} has no chat template",
            "give the rows as text, or add chat_template.jinja beside the weights",
        )
    coded = [code_inputs(tokenizer, row, max_length) for row in rows]
    used = [ids for ids in coded if ids]
    if not used:
        raise DataError(f"{where}: no row has a token", "give rows of text that should keep its outputs")
    return used, {"rows": len(used), "empty": len(coded) - len(used), "tokens": _fitting(model, tokenizer, used, where)}


def answer_rows(
    model: str | Path, sources: Sequence[str | Path], limit: int | None, max_length: int
) -> tuple[list[Coded], dict[str, int]]:
    """Prompt and answer of every row as token ids, and the counts of rows, of rows without an answer and of tokens.

    Raises:
        DataError: a source has prompts without answers, or as `calibration_rows`.
    """
    tokenizer = load_tokenizer(model)
    rows = [row for source in sources for row in rows_with_answers(source, limit)]
    where = ", ".join(shown(source) for source in sources)
    coded = code_answers(rows, tokenizer, max_length, f"calibration: {where}", str(model))
    used = [row for row in coded if row is not None]
    tokens = _fitting(model, tokenizer, [row.ids for row in used], where)
    return used, {"rows": len(used), "empty": len(coded) - len(used), "tokens": tokens}


def rows_with_answers(source: str | Path, limit: int | None) -> list[dict[str, Any]]:
    """The rows of a source, each with an answer.

    Raises:
        DataError: they are prompts alone, or as `input_rows`.
    """
    rows = input_rows(source, limit)
    if any(not row["completion"] for row in rows):
        raise DataError(
            f"calibration: {shown(source)}: prompts without answers",
            "give rows with the answers that the model is good at ('prompt' and 'completion', 'question' and 'answer', "
            "'messages'), or 'text'",
        )
    return rows


def _fitting(model: str | Path, tokenizer: Any, used: Sequence[Sequence[int]], where: str) -> int:
    """The number of tokens; refuses rows that are of another tokenizer than the model."""
    size, largest = _vocabulary(model), max(max(ids) for ids in used)
    if largest >= size:
        raise DataError(
            f"{where}: token id {largest}, and the model's embedding has {size} rows",
            f"the tokenizer beside {model} belongs to another model",
        )
    tokens = sum(map(len, used))
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is not None and (share := sum(ids.count(unknown) for ids in used) / tokens) > _UNKNOWN:
        raise DataError(
            f"{where}: the tokenizer of {model} knows only {1 - share:.0%} of the words", "give rows in its language"
        )
    return tokens


def _vocabulary(model: str | Path) -> int:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model_directory(model, weights=False), trust_remote_code=False)
        return int(config.get_text_config().vocab_size)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{model}: its config cannot be used ({error})", "give a causal language model") from None


def shown(source: str | Path) -> str:
    """A source as it may stand in a file that others get: the name of a local path, not where it lies."""
    return source.name if isinstance(source, Path) else source
