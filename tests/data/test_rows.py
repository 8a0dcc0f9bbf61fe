"""Rows come back as they were written, whatever the container; a bad row is named by file and number."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergetool.data import read_rows
from mergetool.data.rows import hub_parts
from mergetool.errors import DataError
from tests.data.lines import lines

ROW = st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers(), max_size=3)
ROWS = st.lists(ROW, min_size=1, max_size=5)


@given(rows=ROWS)
def test_json_lines_plain_and_gzipped_and_json_hold_the_same_rows(rows, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("rows")
    (folder / "a.jsonl").write_text(lines(rows), encoding="utf-8")
    (folder / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    with gzip.open(folder / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(lines(rows))
    for name in ("a.jsonl", "a.json", "a.jsonl.gz"):
        assert read_rows(folder / name) == rows
    assert read_rows(folder / "a.jsonl", limit=1) == rows[:1]


def test_parquet_holds_the_same_rows(tmp_path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"a": "x", "b": 1}, {"a": "y", "b": 2}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read_rows(tmp_path / "a.parquet") == rows


def test_json_lines_under_a_json_name_are_read(tmp_path) -> None:
    (tmp_path / "a.json").write_text(lines([{"a": 1}, {"a": 2}]))
    assert read_rows(tmp_path / "a.json") == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b'{"a": 1}\n\n{"a": \n', "row 3: not JSON"),
        ("a.jsonl", b"", "no rows"),
        ("a.jsonl", b"\n\n", "no rows"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "row 2 is a list"),
        ("a.jsonl", b"\xff\xfe", "row 1: not UTF-8"),
        ("a.jsonl.gz", b'{"a": 1}\n', "row 1: cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 50, mtime=0)[:-12], "damaged or cut short"),
        ("a.json", b"[", "line 1: not JSON"),
        ("a.json", b"[]", "no rows"),
        ("a.parquet", b"PAR", "not a readable parquet"),
        ("a.xml", b"a,b\n", "known kinds"),
    ],
)
def test_a_bad_file_is_one_line_with_its_name(tmp_path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="a\\.") as caught:
        read_rows(tmp_path / name)
    assert says in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="a directory"):
        read_rows(tmp_path)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("org/set", ("org/set", None, "train")),
        ("org/set@main:test", ("org/set@main", None, "test")),
        ("org/set:main:test", ("org/set", "main", "test")),
        ("org/set:train[:10%]", ("org/set", None, "train[:10%]")),
        ("org/set:main:train[10:20]+test", ("org/set", "main", "train[10:20]+test")),
    ],
)
def test_a_data_set_of_the_hub_is_named_by_configuration_split_and_slice(tmp_path, source: str, parts: tuple) -> None:
    from mergetool.config.sources import resolve_source

    assert resolve_source(source, tmp_path) == source
    assert hub_parts(source) == parts
