"""Completions are read from the four forms that they come in; a row of none of them is named."""

from __future__ import annotations

import pytest

from mergetool.data import completions
from mergetool.errors import DataError
from tests.data.lines import lines


def test_completions_know_four_forms_and_keep_other_keys(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        lines(
            [
                {"prompt": "p", "completion": "c", "skill": "sums"},
                {"question": "q", "answer": "so\n#### 18 "},
                {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]},
                {"text": "t"},
            ]
        )
    )
    assert completions(path) == [
        {"prompt": "p", "completion": "c", "skill": "sums"},
        {"prompt": "q", "completion": "so\n#### 18 ", "target": "18"},
        {"prompt": [{"role": "user", "content": "u"}], "completion": [{"role": "assistant", "content": "a"}]},
        {"prompt": "", "completion": "t"},
    ]
    assert len(completions(path, limit=2)) == 2


@pytest.mark.parametrize("row", [{"x": 1}, {"prompt": "p"}, {"prompt": 1, "completion": "c"}, {"text": ""}, {"text": None}])
def test_a_row_without_a_completion_is_named(tmp_path, row: dict) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines([{"text": "fine"}, row]))
    with pytest.raises(DataError, match="row 2"):
        completions(path)
