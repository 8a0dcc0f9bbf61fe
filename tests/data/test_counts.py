"""What became of rows is told in one line: kept, dropped, and columns that nobody reads."""

from __future__ import annotations

from mergetool.data.counts import Counts, Tally


def test_a_tally_gives_its_counts_and_the_columns_that_are_not_read() -> None:
    tally = Tally(rows=3, empty=1)
    tally.keep({"prompt": "p", "id": 1, "note": None}, {"prompt"})
    tally.keep({"prompt": "p", "note": "n", "id": 2}, {"prompt"})
    assert tally.counts() == Counts(rows=3, kept=2, empty=1, unread=("id", "note"))
    assert str(tally.counts()) == "2 usable of 3 rows (dropped: 1 empty); not read: id, note"


def test_nothing_dropped_is_not_mentioned() -> None:
    assert str(Counts(rows=2, kept=2)) == "2 usable"
    assert Counts(rows=2, kept=2).not_read() == ""
