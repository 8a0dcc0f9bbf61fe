"""Rows as TRL's trainers have tokenised them: how long they are, and which of them a batch was made of."""

from __future__ import annotations

from typing import Any


def rows_of(inputs: Any, dataset: Any) -> list[int]:
    """The numbers (from 1) of the data set's rows that a batch was made of, found by their tokens."""
    if isinstance(inputs, list):  # prompts, of which answers are still to be sampled
        prompts = [row.get("prompt") for row in inputs]
        return [number for number, row in enumerate(dataset, 1) if row["prompt"] in prompts]
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
    columns = [c for c in ("chosen_ids", "rejected_ids", "completion_ids") if c in dataset.column_names]
    if "prompt_ids" not in dataset.column_names or not columns or len(dataset) == 0:
        return {}
    table = dataset.select_columns(["prompt_ids", *columns])
    sizes = [len(row["prompt_ids"]) + max(len(row[c]) for c in columns) for row in table]
    return {"cut": sum(size > limit for size in sizes) if limit else 0, "longest": max(sizes)}
