"""A recipe says by its keys which of the four languages it is written in; each is checked without weights, in any form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

import mergetool
import mergetool.recipe_kinds
from mergetool.align import load_align_recipe
from mergetool.align.recipe import align_recipe
from mergetool.ama import load_ama_recipe
from mergetool.ama.recipe import ama_recipe
from mergetool.config.packaged import KINDS, list_recipes, recipe_path, recipes_root
from mergetool.errors import CheckpointError, RecipeError
from mergetool.merge import load_merge_recipe
from mergetool.merge.recipe import ModelEntry, merge_recipe
from mergetool.recipe_kinds import kind_of
from mergetool.study import load_study_recipe
from mergetool.study.recipe.study_recipe import make_study

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


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_of_a_kind_takes_every_recipe_that_ships(kind: str) -> None:
    made = mergetool.recipe_kinds.schema(kind)
    Draft202012Validator.check_schema(made)
    validator = Draft202012Validator(made)
    for name in [name for one, name in list_recipes() if one == kind]:
        for document in yaml.safe_load_all(recipe_path(kind, name).read_text()):
            assert [error.message for error in validator.iter_errors(document)] == [], name


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("merge", {"merge_method": "ties", "modles": []}),
        ("merge", {"merge_method": "linear", "models": [{"model": "a", "wieght": 1}]}),
        ("align", {"sft_model": "a", "data": {"train": "b"}, "merging": {"method": "ondaer"}}),
        ("align", {"sft_model": "a", "data": {"train": "b"}, "calibration": {"data": "c", "rank": 0}}),
        ("ama", {"sft_model": "a", "rlhf_model": "b", "alpha": 2, "data": {"train": "c"}}),
        ("study", {"models": {"sft": "a"}, "candidates": [], "reward": [], "tax": []}),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(kind: str, content: dict) -> None:
    assert not Draft202012Validator(mergetool.recipe_kinds.schema(kind)).is_valid(content)
    with pytest.raises(RecipeError):
        {"merge": merge_recipe, "align": align_recipe, "ama": ama_recipe, "study": make_study}[kind](content)


@pytest.mark.parametrize("kind", KINDS)
def test_the_schemas_in_the_package_are_those_of_this_code(kind: str) -> None:
    written = json.loads((recipes_root() / "schemas" / f"{kind}.json").read_text())
    assert written == mergetool.recipe_kinds.schema(kind), "make docs writes them anew"


@pytest.mark.parametrize(("kind", "name"), list_recipes(), ids="/".join)
def test_every_recipe_names_the_schema_of_its_kind_for_editors(kind: str, name: str) -> None:
    opening = recipe_path(kind, name).read_text().split("\n")[:20]
    (line,) = [line for line in opening if line.startswith("# yaml-language-server: $schema=")]
    schema = (recipe_path(kind, name).parent / line.partition("=")[2]).resolve()
    assert schema == (recipes_root() / "schemas" / f"{kind}.json").resolve()


def test_a_key_has_the_text_that_the_docstring_has_for_it() -> None:
    merging = mergetool.recipe_kinds.schema("align")["$defs"]["Merging"]
    assert merging["properties"]["density"]["description"] == "p, the fraction of entries kept."
    assert merging["properties"]["lambda"]["description"].startswith("`lambda` in a recipe, the weight of what these add")
    assert "Attributes" not in merging["description"]


def test_there_is_no_schema_of_another_kind() -> None:
    with pytest.raises(RecipeError, match="no recipes of kind 'merg'; did you mean 'merge'"):
        mergetool.recipe_kinds.schema("merg")
