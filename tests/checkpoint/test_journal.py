"""A journal gives back what was noted, wherever it was cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.checkpoint.journal import Finished, Head, Journal

HEAD = Head("abc", [["model.safetensors", 10]], [{"file": "f", "stamp": [1, 2, 3, 4], "content": None}])
LINES = [Finished(f"t{at}", {"numel": at}, None if at else "00") for at in range(3)]


def written(path: Path) -> Journal:
    journal = Journal(path)
    journal.begin(HEAD, LINES[:1])
    for line in LINES[1:]:
        journal.add(line)
    journal.close()
    return journal


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert written(tmp_path / "journal").read() == (HEAD, LINES)
    assert Journal(tmp_path / "none").read() == (None, [])


def test_wherever_it_is_cut_the_whole_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    raw = written(path).path.read_bytes()
    head = raw.index(b"\n")
    for cut in range(head, len(raw) + 1):
        path.write_bytes(raw[:cut])
        read, lines = Journal(path).read()
        assert read == HEAD
        assert lines == LINES[: len(lines)]
        assert len(lines) >= raw[:cut].count(b"\n") - 1


@pytest.mark.parametrize("first", ["", "{", '{"tensor": "t"}', "[]", "\0\0\0"])
def test_a_journal_without_its_head_is_damaged(tmp_path: Path, first: str) -> None:
    (tmp_path / "journal").write_text(first)
    with pytest.raises(ValueError, match="head"):
        Journal(tmp_path / "journal").read()


def test_a_line_that_was_damaged_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    written(path)
    lines = path.read_text().splitlines()
    for wrong in (
        lines[2].replace('"numel": 1', '"numel": 7'),
        lines[2].replace('"t1"', "[]"),
        lines[2].replace("}, ", "}}, "),
    ):
        assert wrong != lines[2]
        path.write_text("\n".join([*lines[:2], wrong, *lines[3:]]) + "\n")
        assert Journal(path).read() == (HEAD, [LINES[0], LINES[2]])
