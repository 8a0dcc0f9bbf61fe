"""A recipe says by its keys which of the four languages it is written in; each is checked without weights, in any form."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import mergetool
from mergetool.align import load_align_recipe
from mergetool.ama import load_ama_recipe
from mergetool.config.packaged import list_recipes, recipe_path
from mergetool.errors import CheckpointError, RecipeError
from mergetool.merge import load_merge_recipe
from mergetool.merge.recipe import ModelEntry
from mergetool.recipe_kinds import kind_of
from mergetool.study import load_study_recipe

LOAD = {"merge": load_merge_recipe, "align": load_align_recipe, "ama": load_ama_recipe, "study": load_study_recipe}
SMALL = [("merge", "ties"), ("align", "dpo-ondare"), ("ama", "lab"), ("study", "early-stopping")]


@pytest.mark.parametrize(("kind", "name"), list_recipes(), ids="/".join)
def test_every_recipe_that_ships_is_of_the_kind_of_its_directory(kind: str, name: str) -> None:
    assert kind_of(yaml.safe_load(recipe_path(kind, name).read_text())) == kind


@pytest.mark.parametrize(("kind", "name"), SMALL)
def test_a_file_its_values_and_the_recipe_read_from_it_give_the_same_facts(kind: str, name: str) -> None:
    path = recipe_path(kind, name)
    found = mergetool.check(path)
    assert (found["recipe"], found["kind"]) == (str(path), kind)
    values, read = mergetool.check(yaml.safe_load(path.read_text())), mergetool.check(LOAD[kind](path))
    assert values == read == {**found, "recipe": "recipe"}


def test_relative_paths_of_plain_values_start_from_the_working_directory(tmp_path: Path, monkeypatch) -> None:
    recipe = {"merge_method": "linear", "models": [{"model": "sft", "parameters": {"weight": 1}}]}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="sft: no such model directory"):
        mergetool.check(recipe)
    (tmp_path / "sft").symlink_to(recipe_path("merge", "ties").parents[2] / "mergetool/lab/triple/sft")
    assert mergetool.check(recipe)["tensors"] == 38


def test_a_merged_model_is_checked_by_its_own_recipe(tmp_path: Path) -> None:
    (tmp_path / "mergekit_config.yml").write_text(recipe_path("merge", "ties").read_text())
    assert mergetool.check(tmp_path) == {**mergetool.check(recipe_path("merge", "ties")), "recipe": str(tmp_path)}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"merge_metod": "ties"}, "neither merge_method, nor sft_model, nor candidates is given; 'merge_metod': did you mean"),
        ({}, "neither merge_method"),
    ],
)
def test_what_no_key_tells_names_the_nearest_key(content: dict, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        mergetool.check(content)
    assert says in str(caught.value)


def test_a_model_that_is_no_recipe_is_refused() -> None:
    with pytest.raises(RecipeError, match="a ModelEntry is no recipe; give a merge, align, AMA or study recipe"):
        mergetool.check(ModelEntry(model="sft"))
