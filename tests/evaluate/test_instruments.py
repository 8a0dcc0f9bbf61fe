"""Reward models and judges are made once, before anything is measured, and only where a metric asks for them."""

import pytest

from mergetool.errors import CheckpointError, RecipeError
from mergetool.evaluate import Instruments, JudgeSettings, Task

ROWS = [{"prompt": "a", "completion": "b"}]


def test_what_cannot_be_asked_is_said_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    judge = JudgeSettings("http://localhost:1/v1", "judge")
    with pytest.raises(RecipeError, match="OPENAI_API_KEY is not set"):
        Instruments().make_ready([Task("t", ("win_rate",), ROWS, judge=judge)])
    with pytest.raises(CheckpointError):
        Instruments().make_ready([Task("t", ("reward_model",), ROWS, reward_model=tmp_path / "none")])


def test_what_no_metric_asks_for_is_not_made(tmp_path):
    judge = JudgeSettings("http://localhost:1/v1", "judge")
    Instruments().make_ready([Task("t", ("nll",), ROWS, reward_model=tmp_path / "none", judge=judge)])


def test_one_judge_serves_equal_settings():
    kept = Instruments()
    one, same, other = (kept.judge(JudgeSettings("http://localhost:1/v1", name, None)) for name in ("a", "a", "b"))
    assert one is same
    assert one is not other
