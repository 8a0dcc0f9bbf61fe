"""GRPO and RAFT: training on answers of the model's own, by what they are worth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mergetool.align import align
from mergetool.align.best_of_n import best_of_group
from mergetool.align.check import check_align
from mergetool.align.recipe import AlignRecipe, align_recipe
from mergetool.errors import CheckpointError, DataError, RecipeError
from tests.align.test_run import Killed, killer, weights
from tests.align.tiny import recipe_text

REWARD = """
def polite(*, prompts, completions, **columns):
    return [float(text.count("please") + text.count("thank")) for text in completions]

def short(*, prompts, completions, **columns):
    return completions[:1]

def broken(*, prompts, completions, **columns):
    return [columns["no such column"]]

LIMIT = 3
"""


@pytest.fixture(scope="module")
def prompts(triple, tmp_path_factory) -> Path:
    """The triple with prompts and a file of rewards beside it."""
    folder = tmp_path_factory.mktemp("sampling")
    for name in ("base", "sft"):
        (folder / name).symlink_to(triple / name)
    things = ("cat", "dog", "hill", "mat")
    rows = [{"prompt": f"how is the {thing} {i} ", "answer": f"red #### {i}"} for i in range(8) for thing in things]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rewards.py").write_text(REWARD)
    return folder


def recipe(folder: Path, algorithm: str, **parts: object) -> AlignRecipe:
    """A short run that rewards polite words."""
    training = {"num_generations": 4, "max_completion_length": 8, "save_steps": 2, **parts.pop("training", {})}
    values = recipe_text(folder, algorithm=algorithm, **{"reward": "rewards.py:polite", **parts})
    values["data"] = {"train": str(folder / "train.jsonl")}
    values["training"] |= training
    return align_recipe(values, folder)


@pytest.mark.parametrize("algorithm", ["grpo", "raft"])
def test_training_on_rewarded_answers_raises_their_reward(prompts, tmp_path, algorithm: str) -> None:
    training = {"max_steps": 25, "per_device_train_batch_size": 32, "learning_rate": 2e-2, "save_strategy": "no"}
    align(recipe(prompts, algorithm, training=training), tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    rewards = [line["reward"] for line in lines if "reward" in line]
    assert sum(rewards[-5:]) > 2 * sum(rewards[:5])
    assert all(line["drift"] > 0 for line in lines[1:] if "loss" in line)


@pytest.mark.parametrize("merging", [{"method": "adamw"}, {"method": "onties", "density": 0.5, "alpha": 1e-2, "every": 3}])
@pytest.mark.parametrize("algorithm", ["grpo", "raft"])
def test_a_killed_run_samples_the_same_answers_when_it_is_resumed(prompts, tmp_path, algorithm: str, merging: dict) -> None:
    made = recipe(prompts, algorithm, merging=merging)
    align(made, tmp_path / "whole")
    with pytest.raises(Killed):
        align(made, tmp_path / "out", report=killer(5))
    assert align(made, tmp_path / "out").resumed_from == 4
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_rafts_gradient_is_that_of_the_best_answers_likelihood(prompts, tmp_path) -> None:
    import torch
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mergetool.align.best_of_n import best_of_n

    model = AutoModelForCausalLM.from_pretrained(prompts / "sft")
    tokenizer = AutoTokenizer.from_pretrained(prompts / "sft")
    rows = [json.loads(line) for line in (prompts / "train.jsonl").read_text().splitlines()][:4]
    config = trl.GRPOConfig(
        output_dir=str(tmp_path), loss_type="grpo", num_generations=4, per_device_train_batch_size=16, use_cpu=True,
        max_completion_length=8, report_to="none", bf16=False, gradient_checkpointing=False,
    )  # fmt: skip
    worth = lambda completions, **columns: [float(len(text)) for text in completions]  # noqa: E731
    trainer = best_of_n(trl.GRPOTrainer)(
        model=model, reward_funcs=worth, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    trainer.current_gradient_accumulation_steps = 1
    model.train()
    batch = trainer._generate_and_score_completions([row for row in rows for _ in range(4)])
    best = batch["advantages"] > 0
    assert best.sum() == len(rows)
    trainer.compute_loss(model, batch).backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)[best]
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)[best]
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1] / config.temperature
    likelihood = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0][:, batch["prompt_ids"].shape[1] - 1 :]
    answers = batch["completion_mask"][best]
    (-(likelihood * answers).sum(1) / answers.sum(1)).mean().backward()
    for name, p in model.named_parameters():
        assert torch.allclose(ours[name], p.grad, atol=1e-6), name


def test_the_best_of_a_group_is_the_first_of_equals_and_none_where_none_is_scored() -> None:
    import torch

    nan = float("nan")
    rewards = torch.tensor([1.0, 3.0, 3.0, nan, nan, nan, -2.0, nan, -1.0])
    assert best_of_group(rewards, 3).tolist() == [0, 3, 0, 0, 0, 0, 0, 0, 3]


def test_a_reward_model_scores_the_answers(prompts, triple, tmp_path) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig.from_pretrained(triple / "sft", num_labels=1, pad_token_id=3)
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "judge")
    AutoTokenizer.from_pretrained(triple / "sft").save_pretrained(tmp_path / "judge")
    made = recipe(prompts, "grpo", reward=[str(tmp_path / "judge"), "rewards.py:polite"])
    align(made, tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert {"rewards/judge/mean", "rewards/polite/mean"} <= lines[0].keys()


def test_preference_pairs_and_questions_serve_as_prompts(triple, tmp_path) -> None:
    from mergetool.data import prompt_rows

    pairs, _ = prompt_rows(triple / "train.jsonl")
    assert pairs[0]["prompt"].startswith("how is the cat")
    (tmp_path / "gsm.jsonl").write_text(json.dumps({"question": "1 + 1?", "answer": "it is 2\n#### 2"}) + "\n")
    assert prompt_rows(tmp_path / "gsm.jsonl")[0] == [{"prompt": "1 + 1?", "answer": "it is 2\n#### 2", "target": "2"}]
    (tmp_path / "none.jsonl").write_text('{"prompt": 3}\n')
    with pytest.raises(DataError, match="row 1: no prompt"):
        prompt_rows(tmp_path / "none.jsonl")


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
        check_align(recipe(prompts, "grpo", **parts))


def test_other_algorithms_take_no_reward_and_raft_no_beta(prompts, triple) -> None:
    with pytest.raises(RecipeError, match="dpo samples no answers"):
        align_recipe(recipe_text(triple, reward="rewards.py:polite"))
    with pytest.raises(RecipeError, match="policy as it is"):
        check_align(recipe(prompts, "raft", training={"steps_per_generation": 2}))
    with pytest.raises(RecipeError, match="raft has no reference model"):
        check_align(recipe(prompts, "raft", beta=0.1))


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
        align(recipe(prompts, "grpo", reward=reward), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
