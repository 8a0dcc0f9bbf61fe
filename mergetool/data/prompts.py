"""Prompts for training that samples its own answers; the other columns stay, for the reward to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mergetool.data.counts import Counts, Tally
from mergetool.data.messages import conversation, is_blank, is_text
from mergetool.data.pairs import pairs
from mergetool.data.rows import numbered_rows
from mergetool.data.texts import FINAL
from mergetool.errors import DataError

KEYS = ("prompt", "question", "instruction", "turns")


def prompt_rows(source: str | Path, limit: int | None = None) -> tuple[list[dict[str, Any]], Counts]:
    """Reads prompts.

    Known forms: `prompt` (text or a list of messages), `question` (GSM8K), `instruction` (AlpacaEval), `turns` (MT-Bench;
    the first is taken), and any form of preference pair, whose shared prompt is taken. A `question` beside a `system` column
    makes a conversation.

    Args:
        source: as read_rows takes it.
        limit: stop after this many usable rows.

    Returns:
        Rows with the key prompt and the row's other keys, plus `target`, the final answer after `####`, where the row
        has an `answer` with one; and the Counts.

    Raises:
        DataError: a row has no prompt (named by its number), or no row is usable.
    """
    tally = Tally()
    return list(prompts(source, tally, limit)), tally.counts()


def prompts(source: str | Path, tally: Tally, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Yields what `prompt_rows` returns, one by one; `tally` counts."""
    _, first = next(numbered_rows(source))
    if "prompt" not in first and "chosen" in first:
        yield from pairs(source, tally, limit)
        return
    for number, row in numbered_rows(source):
        tally.rows += 1
        key = next((key for key in KEYS if key in row), "prompt")
        prompt = row.get(key)
        if key == "turns" and isinstance(prompt, list) and prompt:
            prompt = prompt[0]
        if not is_text(prompt):
            raise DataError(
                f"{source}: row {number}: no prompt (it has: {', '.join(map(str, row)) or 'nothing'})",
                "a row has 'prompt' as text or as messages, or 'question', 'instruction' or 'turns', or is a preference pair",
            )
        if is_blank(prompt):
            tally.empty += 1
            continue
        rest = {name: value for name, value in row.items() if name != key}
        if key == "question" and isinstance(prompt, str) and "system" in rest:
            prompt = conversation(prompt, rest.pop("system"))
        if isinstance(rest.get("answer"), str) and FINAL in rest["answer"]:
            rest.setdefault("target", rest["answer"].rpartition(FINAL)[2].strip())
        tally.kept += 1
        yield {"prompt": prompt, **rest}
        if tally.kept == limit:
            return
    if not tally.kept:
        raise DataError(f"{source}: all {tally.rows} prompts are empty", "give rows with a 'prompt'")
