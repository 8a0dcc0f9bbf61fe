"""A reward model is the SFT model's trunk with a head of one score; what is taught starts elsewhere than its teacher."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mergetool.align import align, align_recipe
from mergetool.align.algorithms import ALGORITHMS
from mergetool.align.check import check_align
from mergetool.align.policy import head_of, must_be_trainable
from mergetool.checkpoint.layout import read_layout
from mergetool.errors import CheckpointError, RecipeError
from tests.align.tiny import recipe_of

REWARD = ALGORITHMS["reward"]


@pytest.fixture(scope="module")
def judge(taught, tmp_path_factory) -> Path:
    """A reward model that was trained while OnTIES merged."""
    out = tmp_path_factory.mktemp("judge") / "judge"
    merging = {"method": "onties", "density": 0.5, "alpha": 1e-3}
    training = {"max_steps": 12, "learning_rate": 1e-2, "save_strategy": "no"}
    align(align_recipe(recipe_of(taught, "reward", merging=merging, training=training), taught), out)
    return out


def test_a_reward_model_is_a_classifier_that_prefers_what_its_rows_prefer(taught, judge) -> None:
    from mergetool.evaluate.reward_model import RewardModel

    config = json.loads((judge / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert (config["id2label"], config["pad_token_id"]) == ({"0": "LABEL_0"}, 3)
    assert read_layout(judge).tensors["score.weight"].shape == (1, 16)
    rows = [json.loads(line) for line in (taught / "eval.jsonl").read_text().splitlines()]
    model = RewardModel(judge)
    scores = {
        side: model.scores([row["prompt"] for row in rows], [row[side] for row in rows]) for side in ("chosen", "rejected")
    }
    assert all(chosen > rejected for chosen, rejected in zip(scores["chosen"], scores["rejected"], strict=True))
    account = json.loads((judge / "mergetool.json").read_text())
    assert account["metrics"]["accuracy"] == 1.0
    assert 0 < account["merging"]["merged_total"] < 12e-3, "a mean over all entries, and the head's are none of them"
    assert "REWARD with onties" in (judge / "README.md").read_text()


def test_rloo_learns_from_it_and_the_card_names_it(taught, judge, tmp_path) -> None:
    recipe = align_recipe(
        recipe_of(taught, "rloo", reward=str(judge), training={"max_steps": 2, "save_strategy": "no"}), taught
    )
    assert check_align(recipe)["reward"] == str(judge)
    result = align(recipe, tmp_path / "out")
    assert result.metrics["reward"] == pytest.approx(result.metrics["rewards/judge/mean"])
    assert f"RLOO with adamw, rewarded by `{judge}`" in (tmp_path / "out/README.md").read_text()


def test_the_head_is_what_lies_outside_of_the_trunk(taught) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(taught / "sft", num_labels=1)
    assert head_of(model, REWARD) == {"score.weight"}
    assert head_of(model, ALGORITHMS["dpo"]) == frozenset()


def test_an_architecture_without_a_classifier_is_refused_before_training(taught) -> None:
    layout = read_layout(taught / "sft")
    must_be_trainable(REWARD, layout)
    mamba = dataclasses.replace(layout, config={"model_type": "mamba"})
    must_be_trainable(ALGORITHMS["dpo"], mamba)
    with pytest.raises(CheckpointError, match="no sequence classifier for 'mamba'"):
        must_be_trainable(REWARD, mamba)


def test_a_policy_that_is_its_own_teacher_is_refused(taught) -> None:
    with pytest.raises(RecipeError, match=r"policy: .* is the SFT model, which would be taught what it does"):
        check_align(align_recipe(recipe_of(taught, "distillation", policy="sft"), taught))


def test_a_policy_that_is_taught_comes_nearer_to_its_teacher(taught, tmp_path) -> None:
    training = {"max_steps": 8, "learning_rate": 1e-2, "save_strategy": "no", "per_device_train_batch_size": 8}
    result = align(align_recipe(recipe_of(taught, "distillation", training=training), taught), tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] / 2
    assert [one["role"] for one in json.loads((tmp_path / "out/mergetool.json").read_text())["inputs"]] == [
        "sft",
        "base",
        "policy",
    ]
    assert result.metrics["loss"] == losses[-1]
