"""The first row as the model will see it: a wrong template or a doubled BOS is best seen before training."""

from __future__ import annotations

from typing import Any

from mergetool.align.watch import Report
from mergetool.errors import DataError


def preview(trainer: Any, tokenizer: Any, report: Report) -> None:
    """Reports each side of the first row: its text, its tokens, and how many of them open and close a sequence."""
    row = trainer.train_dataset[0]
    if trainer.recipe.algorithm_row.samples:
        text = prompt_text(row["prompt"], tokenizer)
        row = {"prompt_ids": [], "input_ids": tokenizer(text, add_special_tokens=isinstance(row["prompt"], str))["input_ids"]}
    sides = {
        name: row.get("prompt_ids", []) + row[f"{name}_ids"]
        for name in ("chosen", "rejected", "completion", "input")
        if f"{name}_ids" in row
    }
    special = {name: token for name in ("bos", "eos") if (token := getattr(tokenizer, f"{name}_token_id")) is not None}
    facts = {}
    for side, ids in sides.items():
        facts[side] = {
            "text": tokenizer.decode(ids),
            "tokens": len(ids),
            **{name: ids.count(token) for name, token in special.items()},
        }
    report("preview", facts)


def prompt_text(prompt: Any, tokenizer: Any) -> str:
    """A prompt as the model reads it.

    Raises:
        DataError: the prompt is a conversation and there is no chat template.
    """
    if isinstance(prompt, str):
        return prompt
    if not tokenizer.chat_template:
        raise DataError("data.train: the prompts are conversations, and the tokenizer has no chat template", "add one")
    return tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
