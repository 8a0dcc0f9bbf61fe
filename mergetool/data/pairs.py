"""Preference pairs, in each of the forms that the field publishes them in."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeGuard

from mergetool.data.rows import numbered_rows
from mergetool.errors import DataError

Text = str | list[dict[str, str]]
TURN = "\n\nAssistant:"  # what opens the answer in transcripts such as HH-RLHF's


@dataclass(frozen=True)
class Counts:
    """What became of the rows of a preference file.

    Attributes:
        rows: rows read.
        kept: usable pairs.
        empty: dropped, an answer without text.
        identical: dropped, chosen and rejected are the same.
        unpaired: dropped, no prompt given and none shared by both transcripts.
    """

    rows: int = 0
    kept: int = 0
    empty: int = 0
    identical: int = 0
    unpaired: int = 0

    def __str__(self) -> str:
        dropped = [f"{n} {name}" for name in ("empty", "identical", "unpaired") if (n := getattr(self, name))]
        return f"{self.kept} usable" + (f" of {self.rows} rows (dropped: {', '.join(dropped)})" if dropped else "")


def preferences(source: str | Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Reads preference pairs; see preference_rows for the forms and the errors."""
    return preference_rows(source, limit)[0]


def preference_rows(source: str | Path, limit: int | None = None) -> tuple[list[dict[str, Any]], Counts]:
    """Reads preference pairs and tells what was dropped.

    Known forms: `prompt`, `chosen`, `rejected` as text or as lists of messages; and pairs without a prompt of their
    own, where it is what both sides share up to the last answer: transcripts as HH-RLHF has them, or conversations.

    Args:
        source: as read_rows takes it.
        limit: stop after this many usable pairs.

    Returns:
        Rows with the keys prompt, chosen, rejected (all text, or all lists of messages), and the Counts.

    Raises:
        DataError: a row lacks an answer or mixes the forms (named by its number), or no row is usable.
    """
    kept: list[dict[str, Any]] = []
    counts = dict.fromkeys(("rows", "empty", "identical", "unpaired"), 0)
    for number, row in numbered_rows(source):
        counts["rows"] += 1
        where = f"{source}: row {number}"
        chosen, rejected = (_answer(row, key, where) for key in ("chosen", "rejected"))
        if type(chosen) is not type(rejected):
            raise DataError(f"{where}: 'chosen' and 'rejected' differ in form", "give both as text or both as messages")
        if chosen == rejected:
            counts["identical"] += 1
            continue
        pair = _with_prompt(row.get("prompt"), chosen, rejected, where)
        if pair is None:
            counts["unpaired"] += 1
        elif is_blank(pair["chosen"]) or is_blank(pair["rejected"]):
            counts["empty"] += 1
        else:
            kept.append(pair)
            if len(kept) == limit:
                break
    found = Counts(kept=len(kept), **counts)
    if not kept:
        raise DataError(
            f"{source}: no usable pair in {found.rows} rows ({found.empty} empty, {found.identical} "
            f"identical, {found.unpaired} without a shared prompt)",
            "each row needs a prompt and two different answers, 'chosen' and 'rejected'",
        )
    return kept, found


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


def is_text(value: Any) -> TypeGuard[Text]:
    """True for text, and for a list of messages."""
    if isinstance(value, str):
        return True
    return isinstance(value, list) and all(isinstance(item, dict) and {"role", "content"} <= item.keys() for item in value)


def _with_prompt(prompt: Any, chosen: Text, rejected: Text, where: str) -> dict[str, Text] | None:
    """The pair with its prompt apart, or None where the two sides share none."""
    if isinstance(chosen, list):
        # Some sets repeat the prompt as text beside two whole conversations; the conversations say more.
        if isinstance(prompt, list) and is_text(prompt):
            return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        size = _shared(chosen, rejected)
        # One conversation that only goes on where the other ends leaves an empty answer; it is counted as such.
        return {"prompt": chosen[:size], "chosen": chosen[size:], "rejected": rejected[size:]} if size else None
    if isinstance(prompt, str):
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    if prompt is not None:
        raise DataError(f"{where}: 'prompt' and the answers differ in form", "give all three as text or as messages")
    size = chosen.rfind(TURN, 0, _shared(chosen, rejected))
    if size < 0:
        return None
    size += len(TURN)
    return {"prompt": chosen[:size], "chosen": chosen[size:], "rejected": rejected[size:]}


def _shared(chosen: Text, rejected: Text) -> int:
    """How many characters (or messages) both begin with."""
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(chosen, rejected, strict=False)))


def is_blank(text: Text) -> bool:
    """True where there is nothing but white space."""
    if isinstance(text, str):
        return not text.strip()
    return not any(str(message["content"] or "").strip() for message in text)
