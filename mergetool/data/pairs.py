"""Preference pairs, in each of the forms that the field publishes them in."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

from mergetool.data.counts import Counts, Tally
from mergetool.data.messages import Text, answered, carried, conversation, is_blank, is_text, said
from mergetool.data.rows import numbered_rows
from mergetool.errors import DataError

TURN = "\n\nAssistant:"  # what opens the answer in transcripts such as HH-RLHF's
_USED = frozenset({"prompt", "chosen", "rejected"})


def preferences(source: str | Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Reads preference pairs; see preference_rows for the forms and the errors."""
    return preference_rows(source, limit)[0]


def preference_rows(source: str | Path, limit: int | None = None) -> tuple[list[dict[str, Any]], Counts]:
    """Reads preference pairs and tells what was dropped.

    Known forms: `prompt`, `chosen`, `rejected` as text or as lists of messages; a `prompt` of text beside answers of
    messages; `question` in place of `prompt`, which with a `system` column makes a conversation; and pairs without a prompt
    of their own, where it is what both sides share up to the last answer: transcripts as HH-RLHF has them, or conversations.

    Args:
        source: as read_rows takes it.
        limit: stop after this many usable pairs.

    Returns:
        Rows with the keys prompt, chosen, rejected (all text, or all lists of messages), and those of `tools` and
        `chat_template_kwargs` that a row has; and the Counts.

    Raises:
        DataError: a row lacks an answer or mixes the forms (named by its number), or no row is usable.
    """
    tally = Tally()
    return list(pairs(source, tally, limit)), tally.counts()


def pairs(source: str | Path, tally: Tally, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Yields what `preference_rows` returns, one by one; `tally` counts."""
    for number, row in numbered_rows(source):
        tally.rows += 1
        where = f"{source}: row {number}"
        chosen, rejected = (_answer(row, key, where) for key in ("chosen", "rejected"))
        if type(chosen) is not type(rejected):
            raise DataError(f"{where}: 'chosen' and 'rejected' differ in form", "give both as text or both as messages")
        if said(chosen) == said(rejected):
            tally.identical += 1
            continue
        pair, used = _with_prompt(row, chosen, rejected, where)
        if pair is None:
            tally.unpaired += 1
        elif is_blank(pair["chosen"]) or is_blank(pair["rejected"]):
            tally.empty += 1
        else:
            more = carried(row)
            tally.keep(row, _USED | used | more.keys())
            yield {**pair, **more}
            if tally.kept == limit:
                return
    if not tally.kept:
        raise DataError(
            f"{source}: no usable pair in {tally.rows} rows ({tally.empty} empty, {tally.identical} "
            f"identical, {tally.unpaired} without a shared prompt)",
            "each row needs a prompt and two different answers, 'chosen' and 'rejected'",
        )


def _answer(row: dict, key: str, where: str) -> Text:
    if key not in row:
        raise DataError(
            f"{where}: no '{key}' (it has: {', '.join(map(str, row)) or 'nothing'})",
            "a preference row has 'prompt', 'chosen' and 'rejected'",
        )
    value = row[key]
    if value is None:
        return ""
    if not is_text(value):
        raise DataError(
            f"{where}: '{key}' is neither text nor a list of messages",
            'a message looks like {"role": "user", "content": "..."}',
        )
    return value


def _with_prompt(row: dict, chosen: Text, rejected: Text, where: str) -> tuple[dict[str, Text] | None, set[str]]:
    """The pair with its prompt apart, or None where the two sides share none; and the columns that the prompt was in."""
    prompt, asked = row.get("prompt"), row.get("question")
    if isinstance(chosen, list):
        # Some sets repeat the prompt as text beside two whole conversations; the conversations say more.
        if isinstance(prompt, list) and is_text(prompt):
            return {"prompt": prompt, "chosen": chosen, "rejected": rejected}, set()
        size = _shared(said(chosen), said(rejected))
        # One conversation that only goes on where the other ends leaves an empty answer; it is counted as such.
        if size:
            return {"prompt": chosen[:size], "chosen": chosen[size:], "rejected": rejected[size:]}, set()
        text = prompt if isinstance(prompt, str) else asked
        if isinstance(text, str) and text.strip():
            return {"prompt": conversation(text, row.get("system")), "chosen": chosen, "rejected": rejected}, _ASKED
        return None, set()
    if isinstance(prompt, str):
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}, set()
    if prompt is not None:
        raise DataError(f"{where}: 'prompt' and the answers differ in form", "give all three as text or as messages")
    if isinstance(asked, str) and asked.strip():
        if "system" not in row:
            return {"prompt": asked, "chosen": chosen, "rejected": rejected}, _ASKED
        sides = {"chosen": answered(chosen), "rejected": answered(str(rejected))}
        return {"prompt": conversation(asked, row["system"]), **sides}, _ASKED
    size = chosen.rfind(TURN, 0, _shared(chosen, rejected))
    if size < 0:
        return None, set()
    size += len(TURN)
    return {"prompt": chosen[:size], "chosen": chosen[size:], "rejected": rejected[size:]}, set()


_ASKED = {"question", "system"}


def _shared(chosen: Text, rejected: Text) -> int:
    """How many characters (or messages) both begin with."""
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(chosen, rejected, strict=False)))
