"""Rows as data sets: written to disk one by one, so that their number is not bounded by memory, and exactly as they are.

Arrow would give every message the keys of every other, and a column one type. What is more than numbers and text is therefore
kept as JSON: a tool's parameters, and a column that is a number in one row and text in another, come back as they were written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

_SCALARS = {bool: "bool", int: "int64", float: "float64", str: "string"}
_WIDEST = 63  # bits of an int64
_EMPTY: Mapping[str, Any] = {"chat_template_kwargs": {}}  # TRL unpacks it in every row of a set that has the column


class Columns:
    """The columns of rows that were looked at, and what kinds of values each holds."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[str]] = {}

    def look(self, row: Mapping[str, Any]) -> None:
        """Notes the columns of a row."""
        for key, value in row.items():
            kinds = self._kinds.setdefault(key, set())
            if value is not None:
                kinds.add(_kind(value))

    def features(self) -> Any:
        """The type of each column, as `datasets` knows them."""
        from datasets import Features, Json, List, Value

        found: dict[str, Any] = {}
        for key, kinds in self._kinds.items():
            known = self._known(kinds)
            if known is None:
                found[key] = Json()
            elif known == "objects":
                found[key] = List(Json())
            elif known.startswith("list of "):
                found[key] = List(Value(known.removeprefix("list of ")))
            else:
                found[key] = Value(known)
        return Features(found)

    @staticmethod
    def _known(kinds: set[str]) -> str | None:
        """The one kind of a column; None where it needs JSON."""
        if kinds <= {"int64", "float64"} and kinds:
            return "float64" if "float64" in kinds else "int64"
        kinds = kinds - {"no items"} or kinds
        if len(kinds) > 1 or kinds & {"other", "object"}:
            return None
        return {"no items": "objects"}.get(found := next(iter(kinds), "string"), found)

    def stored(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row as its data set stores it."""
        found = {}
        for key, kinds in self._kinds.items():
            value, known = row.get(key, _EMPTY.get(key)), self._known(kinds)
            if value is None:
                found[key] = None
            elif known is None:
                found[key] = json.dumps(value)
            elif known == "objects":
                found[key] = [json.dumps(one) for one in value]
            else:
                found[key] = value
        return found


def _kind(value: Any) -> str:
    if isinstance(value, list):
        inner = {_kind(one) for one in value}
        if not inner:
            return "no items"
        if inner == {"object"}:
            return "objects"
        return f"list of {inner.pop()}" if len(inner) == 1 and inner <= set(_SCALARS.values()) else "other"
    if isinstance(value, dict):
        return "object"
    if isinstance(value, int) and value.bit_length() > _WIDEST:
        return "other"
    return _SCALARS.get(type(value), "other")


def data_set(rows: Callable[[], Iterable[dict[str, Any]]], file: Path | None) -> Any:
    """A `datasets.Dataset` of rows.

    Args:
        rows: gives them, each time that it is called: once to see their columns, once to store them.
        file: where they are stored, and read from by a map of memory; None: in memory.
    """
    from datasets import Dataset
    from datasets.arrow_writer import ArrowWriter

    columns = Columns()
    for row in rows():
        columns.look(row)
    features = columns.features()
    if file is None:
        return Dataset.from_list([columns.stored(row) for row in rows()], features=features)
    file.parent.mkdir(parents=True, exist_ok=True)
    with ArrowWriter(path=str(file), features=features, writer_batch_size=1000) as writer:
        for row in rows():
            writer.write(features.encode_example(columns.stored(row)))
        writer.finalize()
    return Dataset.from_file(str(file))
