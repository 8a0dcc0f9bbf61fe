"""Verdicts of a judge on disk: appended to, read back, found by a hash of what was asked."""

from __future__ import annotations

import json
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

from mergetool import reading


class Verdicts:
    """A mapping from question to verdict that outlives the process.

    Args:
        path: a file of JSON lines; made when the first verdict comes. None: nothing is kept.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._lock = path, threading.Lock()
        self._found: dict[str, str] = {}
        text = reading.text(path, reading.LOG, errors="replace") if path is not None and path.exists() else ""
        if path is not None and text and not text.endswith("\n"):  # cut short by a kill: what follows gets a line of its own
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")
        for line in text.splitlines():
            try:
                row = reading.parsed(line)
                self._found[row["key"]] = row["verdict"]
            except (ValueError, KeyError, TypeError):
                continue  # half a line: it is asked again

    @staticmethod
    def key(*question: Any) -> str:
        """A hash of the endpoint, the model and the messages."""
        return sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:32]

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> str:
        return self._found[key]

    def add(self, key: str, verdict: str) -> None:
        """Remembers a verdict; the line is on its way to the disk when this returns."""
        line = json.dumps({"key": key, "verdict": verdict}) + "\n"
        with self._lock:
            self._found[key] = verdict
            if self._path is not None:
                # opened anew and written at once: lines of several processes do not mix
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line)
