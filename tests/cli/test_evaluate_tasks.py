"""Names become metrics or benchmarks; each file gets the metrics that its rows allow, and what lacks its file is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mergetool.cli.evaluate_tasks import Files, data_tasks, names_of
from mergetool.errors import RecipeError
from mergetool.evaluate import METRICS

NOTHING = {"reward_model": None, "judge": None}


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    rows = {
        "pairs": {"prompt": "q", "chosen": " yes", "rejected": " no"},
        "skills": {"prompt": "q", "completion": " yes"},
        "text": {"text": "running on"},
        "asked": {"prompt": "q"},
    }
    for name, row in rows.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    return {name: str(Path(tmp_path) / f"{name}.jsonl") for name in rows}


def test_a_name_is_a_metric_or_a_benchmark() -> None:
    assert names_of(None) == (None, [])
    assert names_of("nll, arc_easy,win_rate") == (["nll", "win_rate"], ["arc_easy"])
    with pytest.raises(RecipeError, match="names nothing"):
        names_of(" , ")


def test_without_names_a_file_gets_what_costs_no_second_model_and_lacks_nothing(files) -> None:
    given = Files(files["pairs"], (files["skills"], files["text"]), (files["asked"],), True)
    found = {task.name: task.metrics for task in data_tasks(given, None, None, 0.1, dict(NOTHING))}
    assert found == {
        "pairs": ("preference_accuracy", "reward_margin", "length_controlled_margin"),
        "skills": ("nll", "exact_match"),
        "text": ("nll",),
        "asked": ("code_switching",),
    }


@pytest.mark.parametrize("name", [row.name for row in METRICS.values() if row.compares_with])
def test_what_compares_with_the_sft_model_needs_it(files, name: str) -> None:
    given = Files(None, (files["skills"],), (files["asked"],), False)
    with pytest.raises(RecipeError, match="needs --reference"):
        data_tasks(given, [name], None, 0.1, {"reward_model": "rm", "judge": "judge"})


@pytest.mark.parametrize("name", [row.name for row in METRICS.values() if row.asks])
def test_what_asks_a_model_or_a_judge_needs_it(files, name: str) -> None:
    with pytest.raises(RecipeError, match=f"{name} needs --"):
        data_tasks(Files(None, (), (files["asked"],), True), [name], None, 0.1, dict(NOTHING))


def test_a_metric_whose_rows_are_not_there_names_the_option(files) -> None:
    with pytest.raises(RecipeError, match="nll cannot be taken on the data given; add --tax"):
        data_tasks(Files(None, (), (files["asked"],), False), ["nll"], None, 0.1, dict(NOTHING))
