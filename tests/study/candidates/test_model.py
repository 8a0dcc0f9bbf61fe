"""The study's models are candidates too, SFT first; the same checkpoint is the same weights under any name."""

from mergetool.study.candidates.workspace import Workspace
from mergetool.study.recipe.expand import expand
from tests.study import tiny


def test_models_come_first_and_a_ready_checkpoint_of_one_is_the_same_weights(folder, tmp_path):
    study = tiny.study(folder, candidates=[{"name": "again", "checkpoint": "rlhf"}])
    found = expand(study)
    assert [(one.name, one.is_model) for one in found] == [("sft", True), ("base", True), ("rlhf", True), ("again", False)]
    workspace = Workspace(study, tmp_path)
    identities = [one.identity(workspace) for one in found]
    assert identities[2] == identities[3]
    assert len(set(identities)) == 3
    assert [one.checkpoint(workspace) for one in found[:2]] == [folder / "sft", folder / "base"]
