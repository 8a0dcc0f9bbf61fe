"""Rows for supervised training, in the forms that TRL's SFT trainer reads, so that the loss is on the tokens that it trains on.

`texts.completions` reads the same files for measuring, where only the last answer counts; the two are not the same question.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mergetool.data.counts import Counts, Tally
from mergetool.data.messages import answered, carried, conversation, is_text, with_roles
from mergetool.data.rows import numbered_rows
from mergetool.errors import DataError

_TOKENS = ("input_ids", "labels", "completion_mask", "assistant_masks")


def supervised_rows(source: str | Path, limit: int | None = None, text: str = "text") -> tuple[list[dict[str, Any]], Counts]:
    """Reads rows for supervised training.

    Known forms: `prompt` and `completion`, as text or as lists of messages; `question` and `answer` (GSM8K), with a `system`
    column as a conversation; `messages` or `conversations` (ShareGPT's `from` and `value` too); running text; and rows of
    `input_ids`, with `labels` or the masks that TRL knows.

    Args:
        source: as read_rows takes it.
        limit: no more than this many rows.
        text: the column that running text is in.

    Returns:
        Rows of one form: with prompt and completion, with messages, with the column of running text, or with input_ids; and
        those of `tools` and `chat_template_kwargs` that a row has. Then the Counts.

    Raises:
        DataError: a row has none of the forms, or another one than the first (named by its number), or there are no rows.
    """
    tally = Tally()
    return list(supervised(source, tally, limit, text)), tally.counts()


def supervised(source: str | Path, tally: Tally, limit: int | None = None, text: str = "text") -> Iterator[dict[str, Any]]:
    """Yields what `supervised_rows` returns, one by one; `tally` counts."""
    first: frozenset[str] | None = None
    for number, row in numbered_rows(source):
        tally.rows += 1
        where = f"{source}: row {number}"
        found, used = _row(row, text, where)
        form = frozenset(found)
        first = form if first is None else first
        if form != first:
            if ("messages" in form) != ("messages" in first):
                raise DataError(f"{where}: some rows are text and some are messages", "give all of them in one form")
            raise DataError(
                f"{where}: has {_listed(form)}, and the first row has {_listed(first)}", "give all of them in one form"
            )
        more = carried(row)
        tally.keep(row, used | more.keys())
        yield {**found, **more}
        if tally.kept == limit:
            return


def _row(row: dict, text: str, where: str) -> tuple[dict[str, Any], set[str]]:
    """The row in its form, and the columns that it was in."""
    if "input_ids" in row:
        found = {key: row[key] for key in _TOKENS if row.get(key) is not None}
        return found, set(found)
    talk = next((key for key in ("messages", "conversations") if isinstance(row.get(key), list) and row[key]), None)
    if "completion" in row or ("question" in row and "answer" in row):
        return _prompt_and_completion(row, text, where)
    if talk:
        messages = with_roles(row[talk])
        if not is_text(messages):
            raise DataError(f"{where}: '{talk}' is no list of messages", 'a message is {"role": "user", "content": "..."}')
        return {"messages": messages}, {talk}
    if text in row:
        _filled(row[text], where)
        if not isinstance(row[text], str):
            raise DataError(f"{where}: the text is a {type(row[text]).__name__}", "give text")
        return {text: row[text]}, {text}
    raise DataError(
        f"{where}: no prompt and completion (it has: {', '.join(map(str, row)) or 'nothing'})",
        f"a row has 'prompt' and 'completion', 'question' and 'answer', 'messages', or '{text}'",
    )


def _prompt_and_completion(row: dict, text: str, where: str) -> tuple[dict[str, Any], set[str]]:
    asks, answers = ("prompt", "completion") if "completion" in row else ("question", "answer")
    prompt, completion = row.get(asks), row[answers]
    used = {asks, answers}
    if prompt is None and asks == "prompt":
        prompt = row["question"] if isinstance(row.get("question"), str) else ""
        used.add("question")
    for name, value in (("prompt", prompt), ("completion", completion)):
        if value is not None and not isinstance(value, (str, list)):
            raise DataError(f"{where}: the {name} is a {type(value).__name__}, not text", "give text or a list of messages")
    _filled(completion, where)
    if isinstance(prompt, str):
        if isinstance(completion, list):
            prompt = conversation(prompt, row.get("system"))
            used.add("system")
        elif row.get("prompt") is None and prompt and "system" in row:
            prompt, completion = conversation(prompt, row["system"]), answered(completion)
            used.add("system")
    if type(prompt) is not type(completion) or not is_text(prompt) or not is_text(completion):
        raise DataError(f"{where}: prompt and completion differ in form", "give both as text or both as messages")
    if prompt == "" and "prompt" not in row:
        return {text: completion}, used  # a completion of nothing is running text
    return {"prompt": prompt, "completion": completion}, used


def _filled(completion: Any, where: str) -> None:
    if not completion:
        raise DataError(f"{where}: the completion is empty", "delete the row or complete it")


def _listed(form: frozenset[str]) -> str:
    return " and ".join(f"'{key}'" for key in sorted(form))
