"""The metric is what the reward model says of the greedy answers."""

import pytest

from mergetool.errors import RecipeError
from mergetool.evaluate import Instruments, Task, evaluate, measure, prepare
from mergetool.evaluate.generation import greedy
from mergetool.evaluate.reward_model import RewardModel
from tests.evaluate import tiny

PROMPTS = [f"{'long ' * at}question {at}:" for at in range(9)]


def test_the_metric_is_the_mean_score_of_the_greedy_answers_and_the_model_is_loaded_once(tmp_path, monkeypatch):
    place, tokenizer = tiny.reward_model(tmp_path / "rm"), tiny.tokenizer()
    rows = [{"prompt": prompt} for prompt in PROMPTS[:4]]
    task = Task("chat", ("reward_model",), rows, max_new_tokens=6, reward_model=place)
    loads = []
    monkeypatch.setattr("mergetool.evaluate.instruments.RewardModel", lambda *args: loads.append(args) or RewardModel(*args))
    kept = Instruments()
    for seed in (1, 2):
        policy = tiny.llama(seed)
        found = measure(policy, prepare(task, tokenizer), tokenizer, instruments=kept)["reward_model"]
        answers = greedy(policy, tokenizer, [tokenizer(row["prompt"])["input_ids"] for row in rows], 6, False)
        scores = kept.reward_model(place).scores(PROMPTS[:4], [text for text, _ in answers])
        assert found["value"] == pytest.approx(sum(scores) / 4)
        assert found["low"] <= found["value"] <= found["high"]
    assert len(loads) == 1


def test_a_task_that_names_no_reward_model_says_so():
    with pytest.raises(RecipeError, match="reward_model needs reward_model"):
        evaluate(tiny.llama(), [Task("t", ("reward_model",), [{"prompt": "a"}])], tokenizer=tiny.tokenizer())
