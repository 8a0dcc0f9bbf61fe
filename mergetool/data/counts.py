"""What became of the rows of a file: kept, dropped, and the columns that nobody reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Counts:
    """What became of the rows of a file.

    Attributes:
        rows: rows read.
        kept: usable ones.
        empty: dropped, an answer without text.
        identical: dropped, chosen and rejected are the same.
        unpaired: dropped, no prompt given and none shared by both transcripts.
        unread: columns of kept rows that are not used, in their order.
    """

    rows: int = 0
    kept: int = 0
    empty: int = 0
    identical: int = 0
    unpaired: int = 0
    unread: tuple[str, ...] = ()

    def __str__(self) -> str:
        dropped = [f"{n} {name}" for name in ("empty", "identical", "unpaired") if (n := getattr(self, name))]
        kept = f"{self.kept} usable" + (f" of {self.rows} rows (dropped: {', '.join(dropped)})" if dropped else "")
        return kept + self.not_read()

    def not_read(self) -> str:
        """The unread columns in words, to stand after others."""
        return f"; not read: {', '.join(self.unread)}" if self.unread else ""


@dataclass
class Tally:
    """Counts while rows are read."""

    rows: int = 0
    kept: int = 0
    empty: int = 0
    identical: int = 0
    unpaired: int = 0
    unread: dict[str, None] = field(default_factory=dict)

    def keep(self, row: Mapping[str, Any], used: Collection[str]) -> None:
        """Counts a usable row, and which of its columns are not used."""
        self.kept += 1
        self.unread.update((str(key), None) for key, value in row.items() if key not in used and value is not None)

    def counts(self) -> Counts:
        """As they are now."""
        return Counts(self.rows, self.kept, self.empty, self.identical, self.unpaired, tuple(self.unread))
