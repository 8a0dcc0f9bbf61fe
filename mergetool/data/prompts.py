"""Prompts for training that samples its own answers; the other columns stay, for the reward to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mergetool.data.pairs import Counts, is_blank, is_text, preference_rows
from mergetool.data.rows import numbered_rows
from mergetool.data.texts import FINAL
from mergetool.errors import DataError

KEYS = ("prompt", "question", "instruction", "turns")


def prompt_rows(source: str | Path, limit: int | None = None) -> tuple[list[dict[str, Any]], Counts]:
    """Reads prompts.

    Known forms: `prompt` (text or a list of messages), `question` (GSM8K), `instruction` (AlpacaEval), `turns` (MT-Bench;
    the first is taken), and any form of preference pair, whose shared prompt is taken.

    Args:
        source: as read_rows takes it.
        limit: stop after this many usable rows.

    Returns:
        Rows with the key prompt and the row's other keys, plus `target`, the final answer after `####`, where the row
        has an `answer` with one; and the Counts.

    Raises:
        DataError: a row has no prompt (named by its number), or no row is usable.
    """
    _, first = next(numbered_rows(source))
    if "prompt" not in first and "chosen" in first:
        return preference_rows(source, limit)
    found: list[dict[str, Any]] = []
    read = empty = 0
    for number, row in numbered_rows(source):
        read += 1
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
            empty += 1
            continue
        rest = {name: value for name, value in row.items() if name != key}
        if isinstance(rest.get("answer"), str) and FINAL in rest["answer"]:
            rest.setdefault("target", rest["answer"].rpartition(FINAL)[2].strip())
        found.append({"prompt": prompt, **rest})
        if len(found) == limit:
            break
    if not found:
        raise DataError(f"{source}: all {read} prompts are empty", "give rows with a 'prompt'")
    return found, Counts(rows=read, kept=len(found), empty=empty)
