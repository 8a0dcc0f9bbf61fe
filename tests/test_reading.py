"""What others wrote is read to a size and a depth, as UTF-8, and nothing is waited for."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from mergetool import reading


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes in the file system")
@pytest.mark.parametrize(
    ("make", "told"), [(pipe, "named pipe"), (device, "device"), (Path.mkdir, "directory"), (listening, "No such device")]
)
def test_what_is_no_file_is_refused_at_once(make: Callable, told: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # the address of a socket has room for a hundred letters
    make(tmp_path / "x")
    with pytest.raises(OSError, match=told):
        reading.content(tmp_path / "x")


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert reading.content(path, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        reading.content(path, 4)
    os.truncate(path, 1 << 40)
    with pytest.raises(OSError, match="more than"):
        reading.content(path)


def test_text_is_utf8_with_one_kind_of_line_end(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes("é\r\nß\r\n".encode())
    assert reading.text(tmp_path / "x") == "é\nß\n"
    (tmp_path / "x").write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError) as error:
        reading.text(tmp_path / "x")
    assert error.value.filename == str(tmp_path / "x")  # type: ignore[attr-defined]
    assert reading.text(tmp_path / "x", errors="replace") == "�"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000 + "]" * 100_000, "nests too deeply"),
        ("[" * 101 + "1" + "]" * 101, "nests too deeply"),
        ('{"a": ' * 101 + "1" + "}" * 101, "nests too deeply"),
        ("9" * 5000, "4300 digits"),
        ('{"a": "\\ud800"}', "half of a letter"),
        ("[" + "[]," * 2_000_000 + "[]]", "more than 2,000,000 lists"),
        ("{", "Expecting property name"),
    ],
    ids=["very deep", "deep lists", "deep mappings", "digits", "half", "many", "cut"],
)
def test_json_that_cannot_be_stood_is_refused_as_damaged_json_is(text: str, told: str) -> None:
    for raw in (text, text.encode()):
        with pytest.raises(json.JSONDecodeError, match=told):
            reading.parsed(raw)


def test_bytes_that_are_not_utf8_are_no_json() -> None:
    with pytest.raises(json.JSONDecodeError, match="not UTF-8"):
        reading.parsed(b'{"a": "\xff"}')


def test_json_is_what_the_library_reads(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True, "é\U0001f600"], "b": {"c": [[[]]]}, "d": ["[[["] * 200}
    assert reading.parsed(json.dumps(value)) == value
    assert reading.parsed("[" * 100 + "]" * 100) is not None
    (tmp_path / "x.json").write_text(json.dumps(value), encoding="utf-8")
    assert reading.parsed_file(tmp_path / "x.json") == value
    (tmp_path / "x.json").write_text("[")
    with pytest.raises(json.JSONDecodeError) as error:
        reading.parsed_file(tmp_path / "x.json")
    assert error.value.filename == str(tmp_path / "x.json")  # type: ignore[attr-defined]


def test_a_name_that_no_file_can_have_is_an_error_of_reading(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="NUL"):
        reading.opened(Path(f"{tmp_path}/a\0b"))
