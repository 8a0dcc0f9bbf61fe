"""Rows as TRL's trainers have tokenised them: how long they are, and which of them a batch was made of."""

from __future__ import annotations

from typing import Any

_ANSWERS = ("chosen_ids", "rejected_ids", "completion_ids", "chosen_input_ids", "rejected_input_ids")


def rows_of(inputs: Any, dataset: Any) -> list[int]:
    """The numbers (from 1) of the data set's rows that a batch was made of, found by their tokens."""
    if isinstance(inputs, list):  # prompts, of which answers are still to be sampled
        prompts = [row.get("prompt") for row in inputs]
        return [number for number, row in enumerate(dataset, 1) if row["prompt"] in prompts]
    if isinstance(inputs.get("prompt"), list):
        return [number for number, row in enumerate(dataset, 1) if row["prompt"] in inputs["prompt"]]
    try:
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        batch = {tuple(ids[:size]) for ids, size in zip(inputs["input_ids"].tolist(), lengths, strict=True)}
    except (KeyError, AttributeError):
        return []
    longest = max(map(len, batch))  # where rows are cut, this is where
    found = []
    for number, row in enumerate(dataset, 1):
        answer = row.get("chosen_ids") or row.get("completion_ids") or []
        ids = row.get("input_ids") or row.get("prompt_ids", []) + answer
        if tuple(ids) in batch or tuple(ids[:longest]) in batch:
            found.append(number)
    return found


def lengths(dataset: Any, limit: int | None) -> dict[str, Any]:
    """How many rows are cut, and the longest."""
    columns = [c for c in _ANSWERS if c in dataset.column_names]
    if not columns or len(dataset) == 0:
        return {}
    before = [c for c in ("prompt_ids",) if c in dataset.column_names]  # else the answers' columns hold the prompt too
    table = dataset.select_columns([*before, *columns])
    sizes = [sum(len(row[c]) for c in before) + max(len(row[c]) for c in columns) for row in table]
    return {"cut": sum(size > limit for size in sizes) if limit else 0, "longest": max(sizes)}
