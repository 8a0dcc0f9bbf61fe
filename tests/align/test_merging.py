"""The keys of `merging:` are those of the method."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from mergetool.align.baselines import BASELINES
from mergetool.align.merging import KEYS, Merging, Method, takes_seed
from mergetool.methods import TRAININGS


def test_every_method_has_a_row_of_keys_that_are_fields() -> None:
    assert set(KEYS) == set(get_args(Method))
    written = {field.alias or name for name, field in Merging.model_fields.items()}
    assert all(keys <= written for keys in KEYS.values())


def test_a_method_that_merges_has_a_row_of_training_and_any_other_one_of_baselines() -> None:
    for method in KEYS:
        made = Merging.model_construct(method=method)
        assert (made.training, made.baseline) == (TRAININGS.get(method), BASELINES.get(method))
        assert (made.training is None) != (made.baseline is None)


def test_a_key_of_another_method_is_refused_and_those_of_this_one_are_named() -> None:
    with pytest.raises(ValidationError, match="'density' is not an option of method l2; its options: seed, storage, strength"):
        Merging(method="l2", density=0.5)


def test_only_a_known_method_without_a_seed_takes_none() -> None:
    assert [method for method in KEYS if not takes_seed(method)] == ["adamw"]
