"""A labelled row is one answer and a thumb; a pair is two of them."""

from __future__ import annotations

import json

import pytest

from mergetool.data import labelled_rows
from mergetool.errors import DataError

GOOD = {"prompt": "p", "completion": "a", "label": True}
BAD = {"prompt": "p", "completion": "b", "label": False}


def write(path, *rows: dict):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_labelled_rows_pass_through_and_empty_ones_are_counted(tmp_path) -> None:
    path = write(tmp_path / "l.jsonl", {**GOOD, "label": 1}, BAD, {**GOOD, "completion": " "})
    rows, counts = labelled_rows(path)
    assert rows == [GOOD, BAD]
    assert (counts.rows, counts.kept, counts.empty) == (3, 2, 1)


def test_a_pair_gives_a_good_and_a_bad_answer(tmp_path) -> None:
    rows, _ = labelled_rows(write(tmp_path / "p.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"}))
    assert rows == [GOOD, BAD]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([GOOD, {"prompt": "p", "completion": "b"}], "row 2: no 'label'"),
        ([GOOD, {**BAD, "label": "bad"}], "row 2: the label is 'bad'"),
        ([GOOD, {**BAD, "completion": [{"role": "assistant", "content": "b"}]}], "row 2: prompt and completion differ"),
        ([GOOD, GOOD], "not both labels"),
    ],
)
def test_what_kto_could_not_learn_from_is_an_error(tmp_path, rows: list, says: str) -> None:
    with pytest.raises(DataError, match=says):
        labelled_rows(write(tmp_path / "l.jsonl", *rows))
