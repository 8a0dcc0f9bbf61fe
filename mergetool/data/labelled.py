"""Single answers with a thumb up or down, as KTO takes them; pairs serve too, one of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mergetool.data.counts import Counts, Tally
from mergetool.data.messages import answered, carried, conversation, is_blank, is_text
from mergetool.data.pairs import pairs
from mergetool.data.rows import numbered_rows
from mergetool.errors import DataError

_USED = frozenset({"prompt", "completion", "label"})
_WORDS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}  # in cells of tables


def labelled_rows(source: str | Path, limit: int | None = None) -> tuple[list[dict[str, Any]], Counts]:
    """Reads answers with a label.

    Known forms: `prompt`, `completion`, `label` (true or false), `question` in place of `prompt` as `preference_rows` takes
    it; or any form of preference pair, which gives two rows.

    Args:
        source: as read_rows takes it.
        limit: stop after this many usable rows (or pairs).

    Returns:
        Rows with the keys prompt, completion, label, and those of `tools` and `chat_template_kwargs` that a row has; and
        the Counts.

    Raises:
        DataError: a row has neither form (named by its number), or no row is usable.
    """
    tally = Tally()
    return list(labelled(source, tally, limit)), tally.counts()


def labelled(source: str | Path, tally: Tally, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Yields what `labelled_rows` returns, one by one; `tally` counts (of pairs, the pairs)."""
    _, first = next(numbered_rows(source))
    if "label" not in first:
        for pair in pairs(source, tally, limit):
            more = carried(pair)
            for side in ("chosen", "rejected"):
                yield {"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen", **more}
        return
    for number, row in numbered_rows(source):
        tally.rows += 1
        found, used = _labelled(row, f"{source}: row {number}")
        if is_blank(found["completion"]):
            tally.empty += 1
            continue
        more = carried(row)
        tally.keep(row, _USED | used | more.keys())
        yield {**found, **more}
        if tally.kept == limit:
            return
    if not tally.kept:
        raise DataError(f"{source}: all {tally.rows} completions are empty", "give rows with a 'completion'")


def _labelled(row: dict, where: str) -> tuple[dict[str, Any], set[str]]:
    prompt, completion, used = row.get("prompt"), row.get("completion"), set()
    asked = row.get("question") if prompt is None else prompt
    if isinstance(asked, str) and completion is not None:
        if isinstance(completion, list):
            prompt, used = conversation(asked, row.get("system")), {"question", "system"}
        elif prompt is None:
            talk = "system" in row
            prompt, used = conversation(asked, row["system"]) if talk else asked, {"question", "system"}
            completion = answered(completion) if talk and isinstance(completion, str) else completion
    values = {"prompt": prompt, "completion": completion, "label": row.get("label")}
    missing = next((key for key, value in values.items() if value is None), None)
    if missing:
        raise DataError(f"{where}: no '{missing}'", "a labelled row has 'prompt', 'completion' and 'label'")
    label = row["label"]
    if isinstance(label, str):
        label = _WORDS.get(label.strip().lower(), label)
    if not isinstance(label, bool) and label not in (0, 1):
        raise DataError(f"{where}: the label is {row['label']!r}", "write true or false")
    if not is_text(prompt) or not is_text(completion) or type(prompt) is not type(completion):
        raise DataError(f"{where}: prompt and completion differ in form", "give both as text or both as messages")
    return {**values, "label": bool(label)}, used
