"""Rows are read once for each split, none is in both, and what decides a score is in its identity."""

import pytest

from mergetool.errors import DataError
from mergetool.study.recipe.splits import metrics_identity, read_tasks
from tests.study import tiny


def test_each_split_has_its_own_rows_up_to_the_limit(folder):
    tasks = read_tasks(tiny.study(folder, tax={**tiny.mapping()["tax"], "limit": 5}))
    assert [one.name for one in tasks["test"]] == ["pairs", "skills"]
    assert [[row["prompt"] for row in tasks[split][1].rows] for split in ("validation", "test")] == [
        [f"say {at}" for at in range(5)],
        [f"say {at}" for at in range(12, 17)],
    ]


def test_a_row_in_both_splits_is_refused_by_number(folder):
    tiny.write(folder / "overlap.jsonl", [*tiny.SKILLS[12:14], tiny.SKILLS[3]])
    data = {"validation": "skills_validation.jsonl", "test": "overlap.jsonl"}
    with pytest.raises(DataError, match=r"the first is row 3 of overlap\.jsonl"):
        read_tasks(tiny.study(folder, tax={**tiny.mapping()["tax"], "data": data}))


def test_the_order_of_metrics_is_a_matter_of_taste_and_the_rows_are_not(folder):
    reward = tiny.mapping()["reward"]
    turned = {**reward, "metrics": reward["metrics"][::-1]}
    assert metrics_identity(tiny.study(folder, reward=turned)) == metrics_identity(tiny.study(folder))
    swapped = {**reward, "data": {"validation": reward["data"]["test"], "test": reward["data"]["validation"]}}
    assert metrics_identity(tiny.study(folder, reward=swapped)) != metrics_identity(tiny.study(folder))


def test_one_file_is_cut_in_two_and_rows_of_one_prompt_stay_together(folder):
    rows = [{**row, "completion": f"{row['completion']}{at}"} for row in tiny.SKILLS for at in (0, 1)]
    tiny.write(folder / "one_file.jsonl", rows)
    tasks = read_tasks(tiny.study(folder, tax={"name": "skills", "metrics": ["nll"], "data": "one_file.jsonl"}))
    prompts = {split: [row["prompt"] for row in tasks[split][1].rows] for split in ("validation", "test")}
    assert len(prompts["validation"]) == len(prompts["test"]) == 24
    assert not set(prompts["validation"]) & set(prompts["test"])
    assert prompts["validation"][0::2] == prompts["validation"][1::2]
    few = read_tasks(tiny.study(folder, tax={"name": "skills", "metrics": ["nll"], "data": "one_file.jsonl", "limit": 5}))
    assert [row["prompt"] for row in few["test"][1].rows] == prompts["test"][:5]
    again = tiny.study(folder, tax={"name": "skills", "metrics": ["nll"], "data": "one_file.jsonl"})
    assert metrics_identity(again) != metrics_identity(tiny.study(folder))


def test_one_prompt_cannot_be_cut_in_two(folder):
    tiny.write(folder / "one_prompt.jsonl", [{"prompt": "a", "completion": str(at)} for at in range(4)])
    with pytest.raises(DataError, match="cannot be cut in two halves"):
        read_tasks(tiny.study(folder, tax={"name": "skills", "metrics": ["nll"], "data": "one_prompt.jsonl"}))
