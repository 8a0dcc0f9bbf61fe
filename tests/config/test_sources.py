"""A name in a recipe means one thing: a part of the lab, a path beside the recipe, or a Hub id."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.config.sources import resolve_source
from mergetool.errors import RecipeError


@pytest.mark.parametrize("text", ["org/name", "org/name@main", "org/name:test", "org/name:main:test"])
def test_an_owner_and_a_name_are_a_hub_id(tmp_path, text: str) -> None:
    assert resolve_source(text, tmp_path) == text


@pytest.mark.parametrize("text", ["sft", "./sft", "a/b/c", "data/rows.jsonl.gz", "../x/y", "models/rows.parquet"])
def test_what_looks_like_a_path_is_one_from_the_recipes_directory(tmp_path, text: str) -> None:
    assert resolve_source(text, tmp_path) == tmp_path / text


def test_an_existing_path_wins_over_a_hub_id(tmp_path) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert resolve_source("org/name", tmp_path) == tmp_path / "org" / "name"


def test_an_absolute_path_and_home_stay_what_they_are(tmp_path) -> None:
    assert resolve_source(str(tmp_path / "a"), "/elsewhere") == tmp_path / "a"
    assert resolve_source("~/a", tmp_path) == Path.home() / "a"


def test_the_lab_is_found_and_a_wrong_part_names_the_nearest(tmp_path) -> None:
    assert resolve_source("lab:sft", tmp_path).name == "sft"
    with pytest.raises(RecipeError, match="did you mean 'preferences_train'"):
        resolve_source("lab:preference_train", tmp_path)


def test_an_empty_name_is_an_error(tmp_path) -> None:
    with pytest.raises(RecipeError):
        resolve_source(" ", tmp_path)
