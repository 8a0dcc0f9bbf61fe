"""Single answers with a thumb up or down, as KTO takes them; pairs serve too, one of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mergetool.data.pairs import Counts, is_blank, is_text, preference_rows
from mergetool.data.rows import numbered_rows
from mergetool.errors import DataError


def labelled_rows(source: str | Path, limit: int | None = None) -> tuple[list[dict[str, Any]], Counts]:
    """Reads answers with a label.

    Known forms: `prompt`, `completion`, `label` (true or false); or any form of preference pair, which gives two rows.

    Args:
        source: as read_rows takes it.
        limit: stop after this many usable rows (or pairs).

    Returns:
        Rows with the keys prompt, completion, label, and the Counts.

    Raises:
        DataError: a row has neither form (named by its number), or all labels are the same.
    """
    _, first = next(numbered_rows(source))
    if "label" not in first:
        pairs, counts = preference_rows(source, limit)
        rows = [
            {"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"}
            for pair in pairs
            for side in ("chosen", "rejected")
        ]
        return rows, counts
    found: list[dict[str, Any]] = []
    read = empty = 0
    for number, row in numbered_rows(source):
        read += 1
        missing = next((key for key in ("prompt", "completion", "label") if row.get(key) is None), None)
        if missing:
            raise DataError(f"{source}: row {number}: no '{missing}'", "a labelled row has 'prompt', 'completion' and 'label'")
        if not isinstance(row["label"], bool) and row["label"] not in (0, 1):
            raise DataError(f"{source}: row {number}: the label is {row['label']!r}", "write true or false")
        if not is_text(row["prompt"]) or type(row["prompt"]) is not type(row["completion"]):
            raise DataError(
                f"{source}: row {number}: prompt and completion differ in form", "give both as text or both as messages"
            )
        if is_blank(row["completion"]):
            empty += 1
            continue
        found.append({"prompt": row["prompt"], "completion": row["completion"], "label": bool(row["label"])})
        if len(found) == limit:
            break
    if len({row["label"] for row in found}) < 2:
        raise DataError(
            f"{source}: {len(found)} usable rows, and not both labels among them",
            "rows with label true and rows with label false are needed",
        )
    return found, Counts(rows=read, kept=len(found), empty=empty)
