"""The trainer is TRL's of the algorithm, with what its baseline trains in place of the weights, or publishes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mergetool.align import align_recipe
from mergetool.align.inputs import load_policy, load_rows
from mergetool.align.quiet import quiet
from mergetool.align.trainer import make_trainer
from mergetool.align.training import training_config
from mergetool.align.watch import Stop
from tests.align.tiny import recipe_text


def trainer_of(triple: Path, place: Path, method: str) -> Any:
    recipe = align_recipe(recipe_text(triple, merging={"method": method}))
    silent = lambda event, facts: None  # noqa: E731
    with quiet():
        rows, _ = load_rows(recipe, silent)
        model, tokenizer = load_policy(recipe, triple / "sft", rows["train"])
        config = training_config(recipe, place)
        return make_trainer(recipe, config, model, tokenizer, rows, (None, triple / "sft"), Stop(), silent)


@pytest.mark.parametrize(
    ("method", "average", "adapter"), [("adamw", False, False), ("ema", True, False), ("lora", False, True)]
)
def test_a_baseline_changes_what_its_row_says(triple, tmp_path, method: str, average: bool, adapter: bool) -> None:
    import trl

    trainer = trainer_of(triple, tmp_path, method)
    assert isinstance(trainer, trl.DPOTrainer)
    assert (trainer.average is not None) is average
    assert (trainer.drift is None) is adapter
    assert any("lora" in name for name, _ in trainer.model.named_parameters()) is adapter


def test_parameters_are_named_and_norms_do_not_decay(triple, tmp_path) -> None:
    trainer = trainer_of(triple, tmp_path, "adamw")
    trainer.args.weight_decay = 0.1
    decays, others = trainer.create_optimizer().param_groups
    assert (decays["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert all("norm" in name for name in others["param_names"])
    assert {*decays["param_names"], *others["param_names"]} == {name for name, _ in trainer.model.named_parameters()}
