"""Prompts are read from the forms that public sets have; their other columns stay for a reward to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.data import Counts, prompt_rows
from mergetool.errors import DataError
from tests.data.lines import lines


def write(folder: Path, *rows: dict) -> Path:
    (folder / "prompts.jsonl").write_text(lines(list(rows)))
    return folder / "prompts.jsonl"


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"prompt": "p", "level": 3}, {"prompt": "p", "level": 3}),
        ({"prompt": [{"role": "user", "content": "u"}]}, {"prompt": [{"role": "user", "content": "u"}]}),
        ({"question": "q", "answer": "so\n#### 18 "}, {"prompt": "q", "answer": "so\n#### 18 ", "target": "18"}),
        ({"instruction": "i", "dataset": "d"}, {"prompt": "i", "dataset": "d"}),
        ({"turns": ["first", "second"], "id": 1}, {"prompt": "first", "id": 1}),
    ],
    ids=["plain", "messages", "gsm8k", "alpacaeval", "mt-bench"],
)
def test_each_form_gives_a_prompt_and_keeps_the_other_columns(tmp_path: Path, row: dict, found: dict) -> None:
    assert prompt_rows(write(tmp_path, row)) == ([found], Counts(rows=1, kept=1))


def test_a_target_of_the_rows_own_is_not_overwritten(tmp_path: Path) -> None:
    (row,), _ = prompt_rows(write(tmp_path, {"question": "q", "answer": "#### 1", "target": "one"}))
    assert row["target"] == "one"


def test_a_preference_pair_gives_the_prompt_that_its_sides_share(tmp_path: Path) -> None:
    pair = {"chosen": "\n\nHuman: q\n\nAssistant: yes", "rejected": "\n\nHuman: q\n\nAssistant: no"}
    (row,), _ = prompt_rows(write(tmp_path, pair))
    assert row["prompt"] == "\n\nHuman: q\n\nAssistant:"


def test_empty_prompts_are_counted_and_a_limit_counts_the_others(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"prompt": " "},
        {"prompt": "a"},
        {"prompt": [{"role": "user", "content": ""}]},
        {"prompt": "b"},
        {"turns": []},
    )
    rows, counts = prompt_rows(path)
    assert [row["prompt"] for row in rows] == ["a", "b"]
    assert counts == Counts(rows=5, kept=2, empty=3)
    assert [row["prompt"] for row in prompt_rows(path, limit=1)[0]] == ["a"]


@pytest.mark.parametrize("row", [{"text": "t"}, {"prompt": 3}, {"prompt": [{"content": "no role"}]}])
def test_a_row_without_a_prompt_is_named_with_what_it_has(tmp_path: Path, row: dict) -> None:
    with pytest.raises(DataError, match=rf"prompts.jsonl: row 2: no prompt \(it has: {next(iter(row))}\)"):
        prompt_rows(write(tmp_path, {"prompt": "fine"}, row))


def test_a_file_of_empty_prompts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all 2 prompts are empty"):
        prompt_rows(write(tmp_path, {"prompt": ""}, {"prompt": "  "}))
