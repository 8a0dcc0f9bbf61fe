"""A recipe is given as a file, as the values that the file would hold, or read already: the same recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from mergetool.config.given import recipe_given
from mergetool.config.strict_yaml import load_yaml, validate
from mergetool.errors import RecipeError


class Small(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    beta: float = 0.1


def make(mapping) -> Small:
    return validate(Small, dict(mapping), "recipe")


def load(path: Path) -> Small:
    return make(load_yaml(path))


def given(what) -> Small:
    return recipe_given(what, Small, load, make)


def test_all_three_forms_are_one_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"beta": 0.5}))
    recipe = given({"beta": 0.5})
    assert recipe == given(tmp_path / "r.yaml") == given(str(tmp_path / "r.yaml"))
    assert given(recipe) is recipe


def test_what_is_none_of_them_is_an_error_that_says_what_may_be_given() -> None:
    for wrong in (3, None, ["beta"]):
        with pytest.raises(RecipeError, match="is no Small; give a YAML file's path"):
            given(wrong)


def test_values_are_checked_as_a_file_is(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'beta'"):
        given({"betta": 1})
    with pytest.raises(RecipeError, match="no such file"):
        given(tmp_path / "none.yaml")
