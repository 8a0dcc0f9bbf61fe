"""Resident anonymous memory of this process: what a benchmark's figures of memory are."""

from __future__ import annotations

import threading
import time
from pathlib import Path


def anonymous() -> int:
    """Bytes now; mapped files are not in it."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) * 1024


class Peak(threading.Thread):
    """The largest value of `anonymous` since it was started, looked at every `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(daemon=True)
        self.bytes, self._seconds = 0, seconds

    def run(self) -> None:
        while True:
            self.bytes = max(self.bytes, anonymous())
            time.sleep(self._seconds)
