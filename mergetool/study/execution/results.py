"""results.jsonl: one line a candidate, appended when it is done, read back by the next run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mergetool import reading

RESULTS = "results.jsonl"


class Results:
    """Lines of results by key. Later lines of one key win, so a candidate that failed can be tried again.

    Args:
        path: the file; its directory exists.
        fresh: start empty; what was there is kept beside it as results.jsonl.old.
    """

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self.path = path
        if fresh and path.exists():
            os.replace(path, path.with_suffix(".jsonl.old"))
        self._rows: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in reading.text(path, reading.LOG, errors="replace").split("\n"):
                try:
                    row = reading.parsed(line)
                except json.JSONDecodeError:
                    continue  # the run was killed in the middle of this line: its candidate is done again
                if _is_whole(row):
                    self._rows[row["key"]] = row

    def done(self, key: str) -> dict[str, Any] | None:
        """The line of a candidate that was measured; None where there is none, or where it failed."""
        row = self._rows.get(key)
        return row if row and not row.get("error") else None

    def add(self, row: dict[str, Any]) -> None:
        """Appends a line and makes sure that it is on disk: the next candidate may take an hour."""
        self._rows[row["key"]] = row
        start = "\n" if self._ends_mid_line() else ""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(start + json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _ends_mid_line(self) -> bool:
        if not self.path.exists() or not self.path.stat().st_size:
            return False
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"


def _is_whole(row: Any) -> bool:
    """Whether a line says what a line of a candidate does; one that was damaged is measured again."""
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("key", "name")):
        return False
    if row.get("error"):
        return isinstance(row["error"], str)
    splits = row.get("scores")
    if not isinstance(splits, dict) or not all(isinstance(scores, dict) for scores in splits.values()):
        return False
    return all(_is_score(score) for scores in splits.values() for score in scores.values())


def _is_score(score: Any) -> bool:
    return isinstance(score, dict) and all(
        isinstance(score.get(key), (int, float)) and not isinstance(score[key], bool) for key in ("value", "low", "high", "n")
    )
