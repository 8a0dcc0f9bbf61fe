"""GRPO and RAFT: training on answers of the model's own, by what they are worth."""

from __future__ import annotations

import json

import pytest

from mergetool.align import align
from mergetool.align.check import check_align
from mergetool.align.recipe import align_recipe
from mergetool.errors import DataError, RecipeError
from tests.align.test_run import Killed, killer, weights
from tests.align.tiny import recipe_text, sampling_recipe


@pytest.mark.parametrize("algorithm", ["grpo", "raft"])
def test_training_on_rewarded_answers_raises_their_reward(prompts, tmp_path, algorithm: str) -> None:
    training = {"max_steps": 25, "per_device_train_batch_size": 32, "learning_rate": 2e-2, "save_strategy": "no"}
    align(sampling_recipe(prompts, algorithm, training=training), tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    rewards = [line["reward"] for line in lines if "reward" in line]
    assert sum(rewards[-5:]) > 2 * sum(rewards[:5])
    assert all(line["drift"] > 0 for line in lines[1:] if "loss" in line)


@pytest.mark.parametrize("merging", [{"method": "adamw"}, {"method": "onties", "density": 0.5, "alpha": 1e-2, "every": 3}])
@pytest.mark.parametrize("algorithm", ["grpo", "raft"])
def test_a_killed_run_samples_the_same_answers_when_it_is_resumed(prompts, tmp_path, algorithm: str, merging: dict) -> None:
    made = sampling_recipe(prompts, algorithm, merging=merging)
    align(made, tmp_path / "whole")
    with pytest.raises(Killed):
        align(made, tmp_path / "out", report=killer(5))
    assert align(made, tmp_path / "out").resumed_from == 4
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_preference_pairs_and_questions_serve_as_prompts(triple, tmp_path) -> None:
    from mergetool.data import prompt_rows

    pairs, _ = prompt_rows(triple / "train.jsonl")
    assert pairs[0]["prompt"].startswith("how is the cat")
    (tmp_path / "gsm.jsonl").write_text(json.dumps({"question": "1 + 1?", "answer": "it is 2\n#### 2"}) + "\n")
    assert prompt_rows(tmp_path / "gsm.jsonl")[0] == [{"prompt": "1 + 1?", "answer": "it is 2\n#### 2", "target": "2"}]
    (tmp_path / "none.jsonl").write_text('{"prompt": 3}\n')
    with pytest.raises(DataError, match="row 1: no prompt"):
        prompt_rows(tmp_path / "none.jsonl")


def test_other_algorithms_take_no_reward_and_raft_no_beta(prompts, triple) -> None:
    with pytest.raises(RecipeError, match="dpo samples no answers"):
        align_recipe(recipe_text(triple, reward="rewards.py:polite"))
    with pytest.raises(RecipeError, match="policy as it is"):
        check_align(sampling_recipe(prompts, "raft", training={"steps_per_generation": 2}))
    with pytest.raises(RecipeError, match="raft has no reference model"):
        check_align(sampling_recipe(prompts, "raft", beta=0.1))
