"""How a run says what happens: one callable that the trainer, the readers of rows and the calibration share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Report = Callable[[str, dict[str, Any]], None]
"""Called with an event's name and its facts: rows, data, information, reference, preview, plan,
row_gradients, resume, step, log, checkpoint, result."""


def silent(event: str, facts: dict[str, Any]) -> None:
    """Says nothing."""
