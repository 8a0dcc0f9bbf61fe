"""Rows for supervised training keep the form that TRL reads: a conversation whole, a completion after its prompt, text bare."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.data import supervised_rows
from mergetool.errors import DataError
from tests.data.lines import lines

USER, ANSWER = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
TALK = [USER, ANSWER, USER, ANSWER]
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def read(folder: Path, *rows: dict, **more: str) -> list[dict]:
    (folder / "a.jsonl").write_text(lines(list(rows)))
    return supervised_rows(folder / "a.jsonl", **more)[0]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"messages": TALK, "prompt": "u", "prompt_id": 3}, {"messages": TALK}),
        ({"conversations": [{"from": "user", "value": "u"}, {"from": "assistant", "value": "a"}]}, {"messages": TALK[:2]}),
        ({"messages": TALK, "tools": TOOLS, "chat_template_kwargs": {"x": 1}}, None),
        ({"prompt": "p", "completion": "c", "messages": TALK}, {"prompt": "p", "completion": "c"}),
        ({"prompt": [USER], "completion": [ANSWER]}, None),
        ({"prompt": "u", "completion": [ANSWER]}, {"prompt": [USER], "completion": [ANSWER]}),
        ({"question": "q", "answer": "#### 1"}, {"prompt": "q", "completion": "#### 1"}),
        ({"system": "", "question": "u", "answer": "a"}, {"prompt": [USER], "completion": [ANSWER]}),
        ({"prompt": "", "completion": "c"}, None),
        ({"completion": "c"}, {"text": "c"}),
        ({"text": "t", "url": "x"}, {"text": "t"}),
        ({"input_ids": [1, 2], "labels": [-100, 2]}, None),
    ],
)
def test_each_form_keeps_what_trl_reads(tmp_path: Path, row: dict, found: dict | None) -> None:
    assert read(tmp_path, row) == [found or row]


def test_running_text_may_stand_in_another_column(tmp_path: Path) -> None:
    assert read(tmp_path, {"body": "t", "text": "no"}, text="body") == [{"body": "t"}]


def test_columns_that_are_not_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines([{"messages": TALK, "prompt_id": "x"}, {"messages": TALK, "score": 1}]))
    rows, counts = supervised_rows(tmp_path / "a.jsonl", limit=2)
    assert (len(rows), counts.unread) == (2, ("prompt_id", "score"))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"x": 1}, r"row 2: no prompt and completion \(it has: x\)"),
        ({"text": ""}, "row 2: the completion is empty"),
        ({"text": 3}, "row 2: the text is a int"),
        ({"prompt": "p", "completion": "c"}, "row 2: has 'completion' and 'prompt', and the first row has 'text'"),
        ({"messages": TALK}, "row 2: some rows are text and some are messages"),
        ({"prompt": 1, "completion": "c"}, "row 2: the prompt is a int"),
        ({"prompt": [USER], "completion": "c"}, "row 2: prompt and completion differ in form"),
        ({"messages": [{"content": "no role"}]}, "row 2: 'messages' is no list of messages"),
    ],
)
def test_a_row_of_no_form_or_of_another_is_named(tmp_path: Path, row: dict, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read(tmp_path, {"text": "fine"}, row)
