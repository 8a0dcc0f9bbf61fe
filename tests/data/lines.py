"""Rows as JSON lines."""

from __future__ import annotations

import json


def lines(rows: list) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
