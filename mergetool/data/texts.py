"""Completions: a prompt and what should follow it, for supervised training and for measuring skills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mergetool.data.rows import numbered_rows
from mergetool.errors import DataError

FINAL = "####"  # opens the final answer in GSM8K and in what follows its form


def completions(source: str | Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Reads rows as prompt and completion.

    Known forms: `prompt` and `completion` (text or lists of messages), `question` and `answer` (GSM8K), `messages`
    (the last one is the completion), `text` (no prompt).

    Args:
        source: as read_rows takes it.
        limit: no more than this many rows.

    Returns:
        Rows with prompt, completion, and the row's other keys; `target`, the final answer after `####`, where there
        is one.

    Raises:
        DataError: a row has none of the forms (named by its number), or the source is missing or empty.
    """
    found: list[dict[str, Any]] = []
    for number, row in numbered_rows(source):
        found.append(_completion(row, f"{source}: row {number}"))
        if len(found) == limit:
            break
    return found


def _completion(row: dict, where: str) -> dict[str, Any]:
    if "completion" in row:
        used, prompt, completion = ("prompt", "completion"), row.get("prompt", ""), row["completion"]
    elif "question" in row and "answer" in row:
        used, prompt, completion = ("question", "answer"), row["question"], row["answer"]
    elif isinstance(row.get("messages"), list) and row["messages"]:
        used, prompt, completion = ("messages",), row["messages"][:-1], row["messages"][-1:]
    elif "text" in row:
        used, prompt, completion = ("text",), "", row["text"]
    else:
        raise DataError(
            f"{where}: no prompt and completion (it has: {', '.join(map(str, row)) or 'nothing'})",
            "a row has 'prompt' and 'completion', 'question' and 'answer', 'messages', or 'text'",
        )
    for name, value in (("prompt", prompt), ("completion", completion)):
        if not isinstance(value, (str, list)):
            raise DataError(f"{where}: the {name} is a {type(value).__name__}, not text", "give text or a list of messages")
    if not completion:
        raise DataError(f"{where}: the completion is empty", "delete the row or complete it")
    rest = {key: value for key, value in row.items() if key not in used}
    if isinstance(completion, str) and FINAL in completion:
        rest.setdefault("target", completion.rpartition(FINAL)[2].strip())
    return {"prompt": prompt, "completion": completion, **rest}
