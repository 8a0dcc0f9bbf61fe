"""A task is a file or a benchmark; its rows say which metric counts."""

from __future__ import annotations

import pytest

from mergetool.errors import RecipeError
from mergetool.study.pick.tasks import entries_of
from tests.study.tiny import PAIRS, SKILLS, write


def test_rows_say_which_metric_counts(tmp_path) -> None:
    write(tmp_path / "short.jsonl", SKILLS)
    write(tmp_path / "pairs.jsonl", PAIRS)
    write(tmp_path / "long.jsonl", [{"question": "why", "answer": "because " * 40 + "#### 4"}])
    write(tmp_path / "text.jsonl", [{"text": "once upon a time"}])
    found = entries_of(["short.jsonl", "pairs.jsonl", "long.jsonl", "text.jsonl", "long.jsonl:exact_match"], tmp_path)
    assert [(one["name"], one["metrics"][0]) for one in found] == [
        ("short", "exact_match"),
        ("pairs", "reward_margin"),
        ("long", "nll"),
        ("text", "nll"),
        ("long-2", "exact_match"),
    ]
    assert found[0]["data"] == str(tmp_path / "short.jsonl")


def test_the_lab_is_named_as_it_is() -> None:
    (found,) = entries_of(["lab:skills_test:nll"])
    assert found == {"name": "skills_test", "metrics": ["nll"], "data": "lab:skills_test"}


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ([], "no task"),
        (["nowhere.jsonl"], "no such file"),
        (["lab:skills_test:win_rate"], "needs judge"),
    ],
)
def test_what_is_no_task_is_refused_in_one_line(tasks, told, tmp_path) -> None:
    with pytest.raises(RecipeError, match=told):
        entries_of(tasks, tmp_path)
