"""A place names its files; what is not a directory or not JSON is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.checkpoint.place import Directory, read_json
from mergetool.errors import CheckpointError


def test_a_directory_lists_its_files_in_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).write_text("")
    place = Directory(tmp_path)
    assert place.files() == ["a", "b"]
    assert place.path("c") == tmp_path / "c"
    assert place.called("a") == str(tmp_path / "a")
    assert place.pinned is None


def test_what_is_no_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such model directory"):
        Directory(tmp_path / "none")
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"file\.txt: "):
        Directory(tmp_path / "file.txt")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "has no x.json; write it"),
        ("{", "is not valid JSON"),
        ("[1]", "is not a JSON object"),
        ("[" * 100_000, "nests too deeply"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "Git-LFS pointer"),
    ],
    ids=["missing", "cut", "list", "deep", "lfs"],
)
def test_json_that_cannot_be_used_is_one_line(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "x.json").write_text(text)
    with pytest.raises(CheckpointError, match=says):
        read_json(Directory(tmp_path), "x.json", "write it")
