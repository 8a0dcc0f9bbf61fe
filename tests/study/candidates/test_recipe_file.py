"""A merge recipe in a file of its own is one candidate, and the same weights as the grid point that it spells out."""

import yaml

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
