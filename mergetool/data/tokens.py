"""Rows to token ids, cut into prompt and completion exactly where TRL's DPO trainer cuts them.

The convention (trl 1.16, DPOTrainer._prepare_dataset): plain text gets the end-of-sequence token appended unless it
is there; prompt + completion is tokenised as one string (or rendered by the chat template); the completion starts
where that first differs from the tokenised prompt, for a pair at the earlier of its two sides; sequences longer than
`max_length` lose their end, and a row whose prompt alone fills `max_length` is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from mergetool.data.messages import template_arguments


@dataclass(frozen=True)
class Coded:
    """One sequence to score.

    Attributes:
        ids: prompt and completion tokens.
        start: index of the first completion token; 0 is possible where nothing precedes the completion.
    """

    ids: tuple[int, ...]
    start: int

    @property
    def length(self) -> int:
        """Completion tokens that can be scored: the first token of a sequence has nothing to be predicted from."""
        return len(self.ids) - max(self.start, 1)


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many leading tokens two sequences have in common."""
    differ = (at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    return next(differ, min(len(first), len(second)))


def _ids(tokenizer, text: str | list, row: Mapping[str, Any], generation_prompt: bool = False) -> list[int]:
    """Tokens of text; of messages through the chat template, with what the row has for it (`tools` and the like)."""
    if isinstance(text, str):
        return list(tokenizer(text)["input_ids"])
    arguments = {"tokenize": True, "return_dict": True, "add_generation_prompt": generation_prompt}
    return list(tokenizer.apply_chat_template(text, **arguments, **template_arguments(row))["input_ids"])


def _joined(prompt: str | list, completion: str | list, end: str | None) -> str | list:
    """Prompt and completion as one input; `end` closes plain text."""
    if isinstance(prompt, list):  # the reader of the rows refuses a chat beside plain text
        return prompt + cast(list, completion)
    text = cast(str, completion)
    return prompt + (text if not end or text.endswith(end) else text + end)


def code_pair(tokenizer, row: dict, max_length: int) -> tuple[Coded, Coded] | None:
    """The two sides of a preference row, or None where the prompt alone fills `max_length` (tokens)."""
    prompt = _ids(tokenizer, row["prompt"], row, generation_prompt=True)
    sides = [_ids(tokenizer, _joined(row["prompt"], row[side], tokenizer.eos_token), row) for side in ("chosen", "rejected")]
    start = min(shared(prompt, side) for side in sides)
    if start >= max_length:
        return None
    chosen, rejected = (Coded(tuple(side[:max_length]), start) for side in sides)
    return chosen, rejected


def code_completion(tokenizer, row: dict, max_length: int) -> Coded | None:
    """Prompt and completion of one row, or None where no completion token is left within `max_length` (tokens).

    A row without a prompt is a piece of running text: it gets no end-of-sequence token, since its end is only where
    somebody cut it.
    """
    prompt = _ids(tokenizer, row["prompt"], row, generation_prompt=True)
    whole = _ids(tokenizer, _joined(row["prompt"], row["completion"], tokenizer.eos_token if row["prompt"] else None), row)
    coded = Coded(tuple(whole[:max_length]), shared(prompt, whole))
    return coded if coded.length > 0 else None


def code_prompt(tokenizer, row: dict) -> list[int]:
    """The prompt of one row as generation starts from it: without the end-of-sequence token some tokenizers append."""
    ids = _ids(tokenizer, row["prompt"], row, generation_prompt=True)
    if isinstance(row["prompt"], str) and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    return ids


def code_inputs(tokenizer, row: dict, max_length: int) -> tuple[int, ...]:
    """Everything that the model reads of one row, for passes that score nothing; a row may be a prompt alone.

    Args:
        tokenizer: of the model.
        row: prompt and completion as `completions` gives them, or a prompt.
        max_length: tokens; what is longer loses its end.
    """
    if not row.get("completion"):
        return tuple(code_prompt(tokenizer, row)[:max_length])
    end = tokenizer.eos_token if row["prompt"] else None
    return tuple(_ids(tokenizer, _joined(row["prompt"], row["completion"], end), row)[:max_length])
