"""What a candidate is depends on what its recipe names and holds, not on what it is called."""

from dataclasses import replace

from mergetool.study.candidates.workspace import Workspace
from mergetool.study.recipe.expand import expand
from tests.study import tiny

MADE = {"base": "base", "sft": "sft", "rlhf": {"align": "adamw"}}


def study(folder, **align):
    candidates = [
        {"name": "adamw", "align": {"method": "adamw", "checkpoints": [0.5], **align}},
        {"name": "lin", "merge": {"merge_method": "linear", "weight": 0.5}},
    ]
    defaults = {"data": {"train": "pairs_validation.jsonl"}, "training": {"max_steps": 4}}
    return tiny.study(folder, models=MADE, align_defaults=defaults, candidates=candidates)


def test_an_identity_follows_the_run_and_not_the_name(folder, tmp_path):
    made = study(folder)
    workspace = Workspace(made, tmp_path)
    _, _, adamw, half, lin = expand(made)
    assert (half.needs, lin.needs) == ("adamw", "adamw")
    for one in (adamw, half, lin):
        assert replace(one, name="x", group="y", family="z", trial=3).identity(workspace) == one.identity(workspace)
    other = expand(study(folder, seed=1))[2:]
    pairs = zip((adamw, half, lin), other, strict=True)
    assert all(one.identity(workspace) != changed.identity(workspace) for one, changed in pairs)


def test_a_recipe_has_real_paths_and_the_run_that_it_needs(folder, tmp_path):
    made = study(folder)
    workspace = Workspace(made, tmp_path)
    _, _, adamw, half, lin = expand(made)
    assert [one["model"] for one in lin.recipe["models"]] == ["SFT", "RLHF"]
    whole = lin.resolved_recipe(workspace)
    assert [one["model"] for one in whole["models"]] == [str(folder / "sft"), str(tmp_path / "candidates/adamw")]
    assert adamw.resolved_recipe(workspace) == half.resolved_recipe(workspace)
    assert adamw.resolved_recipe(workspace)["sft_model"] == str(folder / "sft")
