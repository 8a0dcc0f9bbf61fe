"""A reward is a function or a model; what is none is said before anything is loaded."""

from __future__ import annotations

import json

import pytest

from mergetool.align import align
from mergetool.align.check import check_align
from mergetool.errors import CheckpointError, RecipeError
from tests.align.tiny import sampling_recipe


def test_a_reward_model_scores_the_answers(prompts, triple, tmp_path) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig.from_pretrained(triple / "sft", num_labels=1, pad_token_id=3)
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "judge")
    AutoTokenizer.from_pretrained(triple / "sft").save_pretrained(tmp_path / "judge")
    made = sampling_recipe(prompts, "grpo", reward=[str(tmp_path / "judge"), "rewards.py:polite"])
    align(made, tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert {"rewards/judge/mean", "rewards/polite/mean"} <= lines[0].keys()


@pytest.mark.parametrize(
    ("parts", "kind", "says"),
    [
        ({"reward": None}, RecipeError, "reward is missing"),
        ({"reward": "missing.py:polite"}, RecipeError, "cannot be read"),
        ({"reward": "rewards.py:polit"}, RecipeError, "defines no 'polit'.*polite"),
        ({"reward": "sft"}, CheckpointError, "LlamaForCausalLM, not a reward model"),
        ({"training": {"num_iterations": 3}}, RecipeError, "sampled every 3 steps, and 2 is no multiple"),
        ({"training": {"num_generations": 3}}, RecipeError, "divisible by num_generations"),
    ],
)
def test_what_cannot_be_rewarded_is_said_before_anything_is_loaded(prompts, parts: dict, kind: type, says: str) -> None:
    with pytest.raises(kind, match=says):
        check_align(sampling_recipe(prompts, "grpo", **parts))


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        ("rewards.py:short", "1 values for 4 completions"),
        ("rewards.py:broken", "KeyError"),
        ("rewards.py:LIMIT", "is a int"),
    ],
)
def test_a_reward_that_fails_is_named_and_leaves_nothing(prompts, tmp_path, reward: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        align(sampling_recipe(prompts, "grpo", reward=reward), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
