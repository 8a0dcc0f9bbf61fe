"""A value that is set beside a recipe is as if the file said it, and leaves the file's own values alone."""

from __future__ import annotations

from typing import Any

import pytest

from mergetool.config.settings import with_settings
from mergetool.errors import RecipeError

RECIPE = {"training": {"max_steps": 3}, "beta": 0.1, "models": [{"model": "a"}, {"model": "b", "parameters": {"weight": 1}}]}


@pytest.mark.parametrize(
    ("setting", "keys", "value"),
    [
        ("training.learning_rate=1e-5", ("training", "learning_rate"), 1e-5),
        ("training.max_steps=5", ("training", "max_steps"), 5),
        ("merging.every=total", ("merging", "every"), "total"),
        ("beta=0.2", ("beta",), 0.2),
        ("data.eval=null", ("data", "eval"), None),
        ("models.1.parameters.weight=[0, 0.5]", ("models", 1, "parameters", "weight"), [0, 0.5]),
        ("sft_model=org/name@main", ("sft_model",), "org/name@main"),
        ("training.run_name=a=b", ("training", "run_name"), "a=b"),
    ],
)
def test_a_value_is_read_as_yaml_reads_it(setting: str, keys: tuple, value: Any) -> None:
    found: Any = with_settings(RECIPE, [setting])
    for key in keys:
        found = found[key]
    assert (found, type(found)) == (value, type(value))


def test_the_last_of_two_holds_and_the_recipe_stays_what_it_was() -> None:
    assert with_settings(RECIPE, ["beta=1", "beta=2"]) == {**RECIPE, "beta": 2}
    assert RECIPE["training"] == {"max_steps": 3}


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("beta", "no KEY=VALUE"),
        ("=1", "no KEY=VALUE"),
        ("beta.more=1", r"--set beta.more=1: beta is 0.1, which has no keys"),
        ("models.2.model=c", "'2' is no place in a list of 2"),
        ("models.x=c", "'x' is no place"),
        ("beta=[1", "--set beta"),
    ],
)
def test_what_cannot_be_set_is_told(setting: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        with_settings(RECIPE, [setting])
