"""`training:` is TRL's own config: every field passes, and a wrong one is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.align import align_recipe
from mergetool.align.training import check_batch, smallest_batch, training_config
from mergetool.errors import RecipeError
from tests.align.tiny import recipe_of, recipe_text


def recipe(folder: Path, **parts: object):
    return align_recipe(recipe_text(folder, **parts))


def training(folder: Path, **values: object):
    return training_config(recipe(folder, training={"use_cpu": True, **values}), folder / "unused")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"learning_rat": 1}, "training.learning_rat: no field of TRL's DPOConfig; did you mean 'learning_rate'?"),
        ({"learning_rate": "fast"}, "training.learning_rate: should be a valid number, not 'fast'"),
        ({"max_steps": 1.5}, "training.max_steps: should be a valid integer"),
        ({"lr_scheduler_type": "sinus"}, "training"),
        ({"eval_strategy": "never"}, "training"),
        ({"output_dir": "x"}, "training.output_dir: not set here; OUT on the command line says where"),
        ({"optim": "sgd"}, "`merging.method` chooses the optimizer"),
        ({"max_length": 9}, "training.max_length: data.max_length is given too"),
    ],
)
def test_a_wrong_training_field_is_one_line(triple, values: dict, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        training(triple, **values)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_training_fields_pass_through_and_text_numbers_become_numbers(triple) -> None:
    config = training(triple, learning_rate="1e-6", warmup_steps=3, label_smoothing=0.1)
    assert (config.learning_rate, config.warmup_steps, config.label_smoothing) == (1e-6, 3, 0.1)
    assert config.precompute_ref_log_probs


def test_ipo_is_trls_ipo_loss_and_refuses_another(triple) -> None:
    parts = recipe_text(triple, algorithm="ipo")
    assert training_config(align_recipe(parts), "unused").loss_type == ["ipo"]
    parts["training"] = {**parts["training"], "loss_type": "hinge"}
    with pytest.raises(RecipeError, match="algorithm ipo sets it"):
        training_config(align_recipe(parts), "unused")


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (
            {"algorithm": "online_dpo", "data": {"train": "t.jsonl", "max_length": 9}},
            r"set training\.max_new_tokens for",
        ),
        ({"algorithm": "online_dpo", "data": {"train": "t.jsonl", "eval": "e.jsonl"}}, r"OnlineDPOTrainer cannot be evaluated"),
        ({"algorithm": "distillation", "beta": 1.5}, r"training: beta must be in \[0\.0, 1\.0\]"),
        ({"algorithm": "distillation", "training": {"teacher_model_name_or_path": "x"}}, "the SFT model is the teacher"),
        ({"algorithm": "rloo", "training": {"num_generations": 1}}, "training: RLOO requires at least 2 generations"),
        ({"algorithm": "reward", "beta": 0.1}, "beta: algorithm reward has no reference model"),
        ({"algorithm": "simpo", "training": {"cpo_alpha": 1.0}}, r"training\.cpo_alpha: algorithm simpo sets it"),
    ],
)
def test_what_an_algorithm_cannot_do_is_one_line(taught, parts: dict, says: str) -> None:
    values = {**recipe_of(taught, parts["algorithm"], data={"train": "t.jsonl"}), **parts}
    values["training"] = {"use_cpu": True, **parts.get("training", {})}
    with pytest.raises(RecipeError, match=says) as caught:
        training_config(align_recipe(values), "unused")
    assert "\n" not in str(caught.value)


def test_a_sampling_takes_whole_batches_where_its_trainer_does(taught) -> None:
    def smallest(algorithm: str, **training: object) -> int:
        values = recipe_of(taught, algorithm, training={"gradient_accumulation_steps": 3, **training})
        made = align_recipe(values)
        return smallest_batch(made.algorithm_row, training_config(made, "unused"))

    assert smallest("distillation") == 12  # of 4 rows each, all of one update
    assert smallest("rloo") == 3
    assert smallest("online_dpo") == 1
    made = align_recipe(recipe_of(taught, "distillation", training={"gradient_accumulation_steps": 3}))
    config = training_config(made, "unused")
    with pytest.raises(RecipeError, match=r"training\.gradient_accumulation_steps: a batch needs 12 rows, and there are 11"):
        check_batch(made.algorithm_row, config, 11)
