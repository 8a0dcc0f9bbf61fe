"""What a metric of answers reads, with answers that are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Answers:
    """Texts, and the rows that they answer."""

    def __init__(self, texts: Sequence[str], rows: Sequence[dict[str, Any]] = ()) -> None:
        self.texts, self.rows = texts, rows
