"""Rows as mere inputs: any form is read, and the model reads of it what it reads in training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mergetool.data import completions, input_rows
from mergetool.data.tokens import code_completion, code_inputs
from mergetool.errors import DataError
from mergetool.hub.loading import load_tokenizer
from mergetool.lab import lab_path


def rows(path: Path, *found: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@pytest.mark.parametrize(
    ("row", "read"),
    [
        ({"prompt": "a", "completion": "b", "label": 3}, ("a", "b")),
        ({"question": "a", "answer": "b"}, ("a", "b")),
        ({"text": "b"}, ("", "b")),
        ({"prompt": "a"}, ("a", "")),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, ("a", "b")),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            ([{"role": "user", "content": "a"}], [{"role": "assistant", "content": "b"}]),
        ),
    ],
)
def test_forms(tmp_path: Path, row: dict, read: tuple) -> None:
    assert input_rows(rows(tmp_path / "rows.jsonl", row, row), limit=1) == [{"prompt": read[0], "completion": read[1]}]


def test_a_row_of_another_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 2"):
        input_rows(rows(tmp_path / "rows.jsonl", {"text": "a"}, {"label": 1}))


def test_what_is_read_of_a_completion_is_what_is_scored() -> None:
    tokenizer = load_tokenizer(lab_path("sft"))
    for row in completions(lab_path("skills_validation"), 5):
        coded = code_completion(tokenizer, row, 128)
        assert coded is not None
        assert code_inputs(tokenizer, row, 128) == coded.ids
        assert code_inputs(tokenizer, row, 3) == coded.ids[:3]
        prompt = code_inputs(tokenizer, {"prompt": row["prompt"], "completion": ""}, 128)
        assert prompt == coded.ids[: coded.start]
