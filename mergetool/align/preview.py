"""The first row as the model will see it: a wrong template or a doubled BOS is best seen before training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import Any

from mergetool.align.report import Report
from mergetool.errors import DataError

OPEN, CLOSE = "⟦", "⟧"  # around what is in the loss
_IGNORED = -100  # a label of TRL's that is in no loss


def preview(trainer: Any, tokenizer: Any, report: Report) -> None:
    """Reports each side of the first row: its text, its tokens, and how many of them open and close a sequence.

    Where the trainer has labels, also how many tokens are in the loss, and the text with these between ⟦ and ⟧.
    """
    row = trainer.train_dataset[0]
    if (sampling := trainer.recipe.algorithm_row.sampling) is not None:
        text = prompt_text(row["prompt"], tokenizer)
        special = sampling.special_tokens and isinstance(row["prompt"], str)
        row = {"prompt_ids": [], "input_ids": tokenizer(text, add_special_tokens=special)["input_ids"]}
    sides = {
        name: row.get("prompt_ids", []) + row[f"{name}_ids"]
        for name in ("chosen", "rejected", "completion", "input")
        if f"{name}_ids" in row
    }
    sides |= {name: row[f"{name}_input_ids"] for name in ("chosen", "rejected") if f"{name}_input_ids" in row}
    special = {name: token for name in ("bos", "eos") if (token := getattr(tokenizer, f"{name}_token_id")) is not None}
    facts = {}
    for side, ids in sides.items():
        facts[side] = {
            "text": tokenizer.decode(ids),
            "tokens": len(ids),
            **{name: ids.count(token) for name, token in special.items()},
        }
        if side == "input" and "labels" in row:
            starts = set(accumulate(row.get("seq_lengths", ()), initial=0)) if "seq_lengths" in row else set()
            # the first token of a row that is packed with others has nothing to be predicted from
            in_loss = [label != _IGNORED and place not in starts for place, label in enumerate(row["labels"])]
            facts[side] |= {"in_loss": sum(in_loss), "marked": marked(ids, in_loss, tokenizer)}
            if getattr(trainer.args, "packing", False):
                facts[side]["packed"] = True
    report("preview", facts)


def marked(ids: Sequence[int], in_loss: Sequence[bool], tokenizer: Any) -> str:
    """The text of tokens, with those in the loss between ⟦ and ⟧."""
    parts = []
    for learnt, part in groupby(zip(in_loss, ids, strict=True), key=lambda pair: pair[0]):
        text = tokenizer.decode([token for _, token in part])
        parts.append(f"{OPEN}{text}{CLOSE}" if learnt else text)
    return "".join(parts)


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
