"""Every study that comes with the package is valid, and those on the embedded lab can be run as they are."""

import pytest

from mergetool.config.packaged import KINDS, list_recipes, recipe_path
from mergetool.config.strict_yaml import load_yaml
from mergetool.study import check_study, load_study_recipe
from mergetool.study.recipe.study_recipe import make_study

STUDIES = [name for kind, name in list_recipes() if kind == "study"]


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_that_ships_is_valid_and_opens_with_its_command(name):
    path = recipe_path("study", name)
    load_study_recipe(path)
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# mergetool ")
    assert name in first


def test_the_demo_can_be_run_as_it_is():
    study = load_study_recipe(recipe_path("study", "demo"))
    found = check_study(study)
    assert found["trainings"] >= 3
    assert {"sft", "base", "adamw"} <= set(found["groups"])


@pytest.mark.slow
def test_the_demo_runs_from_end_to_end_in_small(tmp_path):
    from mergetool.study import run_study, write_outputs

    path = recipe_path("study", "demo")
    mapping = load_yaml(path)
    mapping["align_defaults"]["training"]["max_steps"] = 2
    mapping["align_defaults"]["data"]["limit"] = 16
    mapping["candidates"] = [
        {**one, "align": {**one["align"], "seed": 0, **({"every": [1, "total"]} if "every" in one["align"] else {})}}
        if "align" in one
        else one
        for one in mapping["candidates"]
    ]
    for entry in (mapping["reward"], mapping["tax"]):
        entry["limit"] = 8
    study = make_study(mapping, path, path.parent)
    result = run_study(study, tmp_path / "out")
    assert not result.failures
    assert all(file.exists() for file in write_outputs(study, result))


def test_a_recipe_is_found_by_kind_and_name_and_a_wrong_one_names_the_nearest():
    for kind, name in list_recipes():
        assert kind in KINDS
        assert recipe_path(kind, name).is_file()
    with pytest.raises(Exception, match="did you mean 'study/demo'"):
        recipe_path("study", "dmeo")
