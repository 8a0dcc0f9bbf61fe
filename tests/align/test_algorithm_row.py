"""A row finds TRL's classes by name, and says in one line where the installed TRL has them not."""

from __future__ import annotations

import dataclasses

import pytest

from mergetool.align.algorithms import ALGORITHMS
from mergetool.errors import RecipeError


@pytest.mark.parametrize("place", ["trl.experimental.gone:OnlineDPOTrainer", "trl.experimental.online_dpo:GoneTrainer"])
def test_a_trainer_that_trl_no_longer_has_is_one_line(place: str) -> None:
    row = dataclasses.replace(ALGORITHMS["online_dpo"], trainer=place, config=place)
    for find in (row.trainer_class, row.config_class):
        with pytest.raises(RecipeError, match=r"algorithm: online_dpo is trl\.experimental.*does not have.*; install") as told:
            find()
        assert "\n" not in str(told.value)


def test_what_is_trained_follows_from_whether_it_scores() -> None:
    assert (ALGORITHMS["reward"].model, ALGORITHMS["reward"].task) == ("AutoModelForSequenceClassification", "SEQ_CLS")
    assert (ALGORITHMS["rloo"].model, ALGORITHMS["rloo"].task) == ("AutoModelForCausalLM", "CAUSAL_LM")
    assert [row.name for row in ALGORITHMS.values() if row.samples] == ["grpo", "rloo", "raft", "online_dpo", "distillation"]


def test_the_field_that_limits_an_answer_is_trls() -> None:
    for row in ALGORITHMS.values():
        assert row.sampling is None or row.sampling.length in {field.name for field in dataclasses.fields(row.config_class())}
