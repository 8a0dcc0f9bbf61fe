"""A merge recipe in a file of its own is one candidate, and the same weights as the grid point that it spells out."""

import pytest
import yaml

from mergetool.errors import RecipeError
from mergetool.study.candidates.workspace import Workspace
from mergetool.study.recipe.expand import expand
from tests.study import tiny


def test_a_recipe_file_names_its_models_itself_and_changes_with_what_they_hold(folder, tmp_path):
    weights = [(folder / "sft", 0.5), (folder / "rlhf", 0.5)]
    models = [{"model": str(path), "parameters": {"weight": weight}} for path, weight in weights]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"merge_method": "linear", "models": models}))
    study = tiny.study(folder, models={"sft": "sft"}, candidates=[{"name": "whole", "recipe": str(tmp_path / "r.yaml")}])
    candidate = expand(study)[-1]
    workspace = Workspace(study, tmp_path)
    assert candidate.resolved_recipe(workspace)["models"] == models
    assert candidate.run is None
    before = candidate.identity(workspace)
    models[1]["model"] = str(folder / "base")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"merge_method": "linear", "models": models}))
    assert expand(study)[-1].identity(workspace) != before


def test_a_recipe_in_the_study_may_call_the_models_by_their_names(folder, tmp_path):
    models = [{"model": "SFT", "parameters": {"weight": 0.5}}, {"model": "base", "parameters": {"weight": 0.5}}]
    recipe = {"merge_method": "linear", "models": models}
    study = tiny.study(folder, models={"sft": "sft"}, candidates=[{"name": "mine", "recipe": recipe}])
    made = expand(study)[-1].resolved_recipe(Workspace(study, tmp_path))
    assert [one["model"] for one in made["models"]] == [str(folder / "sft"), str(folder / "base")]
    wrong = {**recipe, "base_model": "BASE"}
    with pytest.raises(RecipeError, match=r"'mine' names BASE, and the study has no such checkpoint; add models\.base"):
        expand(tiny.study(folder, models={"sft": "sft"}, candidates=[{"name": "mine", "recipe": wrong}]))
