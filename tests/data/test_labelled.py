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
        ([GOOD, {**BAD, "prompt": [{"role": "user", "content": "p"}]}], "row 2: prompt and completion differ"),
        ([{**GOOD, "completion": " "}, {**BAD, "completion": ""}], "all 2 completions are empty"),
    ],
)
def test_what_kto_could_not_learn_from_is_an_error(tmp_path, rows: list, says: str) -> None:
    with pytest.raises(DataError, match=says):
        labelled_rows(write(tmp_path / "l.jsonl", *rows))


def test_labels_are_truth_values_however_a_table_writes_them(tmp_path) -> None:
    for good, bad in (("TRUE", "FALSE"), ("True", "false"), ("1", "0"), (1.0, 0.0)):
        (tmp_path / "t.tsv").write_text(f"prompt\tcompletion\tlabel\np\ta\t{good}\np\tb\t{bad}\n")
        assert labelled_rows(tmp_path / "t.tsv")[0] == [GOOD, BAD]


def test_a_sorted_file_and_one_of_good_answers_alone_are_read(tmp_path) -> None:
    assert labelled_rows(write(tmp_path / "s.jsonl", GOOD, GOOD, BAD, BAD), limit=2)[0] == [GOOD, GOOD]
    assert labelled_rows(write(tmp_path / "g.jsonl", GOOD, GOOD))[0] == [GOOD, GOOD]


def test_a_prompt_of_text_beside_an_answer_of_messages_and_a_system_column_make_a_conversation(tmp_path) -> None:
    answer = [{"role": "assistant", "content": "a"}]
    rows = [
        {"prompt": "p", "completion": answer, "label": True},
        {"system": "s", "question": "p", "completion": "a", "label": True, "tools": [{"type": "function"}]},
    ]
    (plain, system), counts = labelled_rows(write(tmp_path / "l.jsonl", *rows))
    assert plain == {"prompt": [{"role": "user", "content": "p"}], "completion": answer, "label": True}
    assert [one["role"] for one in system["prompt"]] == ["system", "user"]
    assert system["completion"] == answer
    assert system["tools"] == [{"type": "function"}]
    assert counts.unread == ()
