"""results.jsonl: one line a candidate, appended when it is done, read back by the next run.

Beside it: rows.jsonl, the scores of each candidate row by row, of which differences are taken; samples.jsonl, the answers
that metrics read. Results of before these were kept go without.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mergetool import reading
from mergetool.study.analysis.row_scores import RowScores, read, written

RESULTS = "results.jsonl"
ROWS, SAMPLES = "rows", "samples"
"""Keys of a line that go into files of their own."""


class Results:
    """Lines of results by key. Later lines of one key win, so a candidate that failed can be tried again.

    Args:
        path: the file; its directory exists.
        fresh: start empty; what was there is kept beside it as results.jsonl.old.

    Attributes:
        row_scores: key -> scores row by row, of the lines that have them.
    """

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self.path = path
        self._beside = {name: path.with_name(f"{name}.jsonl") for name in (ROWS, SAMPLES)}
        for one in (path, *self._beside.values()) if fresh else ():
            if one.exists():
                os.replace(one, one.with_suffix(".jsonl.old"))
        self._rows = {row["key"]: row for row in _lines(path) if _is_whole(row)}
        kept = [row for row in _lines(self._beside[ROWS]) if row.get("key") in self._rows and ROWS in row]
        self.row_scores: dict[str, RowScores] = {row["key"]: read(row[ROWS]) for row in kept}

    def done(self, key: str) -> dict[str, Any] | None:
        """The line of a candidate that was measured; None where there is none, or where it failed."""
        row = self._rows.get(key)
        return row if row and not row.get("error") else None

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        """Appends a line and makes sure that it is on disk: the next candidate may take an hour.

        Returns:
            The line: without what has gone into the files beside it, which are written first.
        """
        line = {key: value for key, value in row.items() if key not in self._beside}
        names = {key: line[key] for key in ("key", "name") if key in line}
        if rows := row.get(ROWS):
            self.row_scores[row["key"]] = rows
            _append(self._beside[ROWS], [{**names, ROWS: written(rows)}])
        if samples := row.get(SAMPLES):
            _append(self._beside[SAMPLES], [{**names, **sample} for sample in samples])
        self._rows[row["key"]] = line
        _append(self.path, [line])
        return line


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in reading.text(path, reading.LOG, errors="replace").split("\n"):
        try:
            row = reading.parsed(line)
        except json.JSONDecodeError:
            continue  # the run was killed in the middle of this line: its candidate is done again
        if isinstance(row, dict):
            yield row


def _append(path: Path, lines: list[dict[str, Any]]) -> None:
    start = "\n" if _ends_mid_line(path) else ""
    with path.open("a", encoding="utf-8") as file:
        file.write(start + "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())


def _ends_mid_line(path: Path) -> bool:
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
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
