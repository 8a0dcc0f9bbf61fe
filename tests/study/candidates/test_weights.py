"""Weights are put into the live model by whoever has them: a checkpoint from disk, a merge from its recipe."""

from mergetool.study.candidates.workspace import Workspace
from mergetool.study.execution.live_model import LiveModel
from mergetool.study.recipe.expand import expand
from tests.study import tiny


def test_a_merge_with_all_the_weight_on_one_model_is_that_models_checkpoint(folder, tmp_path):
    import torch

    study = tiny.study(folder, candidates=[{"name": "all", "merge": {"merge_method": "linear", "weight": 1}}])
    workspace, live = Workspace(study, tmp_path), LiveModel(folder / "sft")
    found = {}
    for candidate in expand(study):
        candidate.make(workspace).put(live, candidate.name)
        found[candidate.name] = {name: tensor.clone() for name, tensor in live.model.state_dict().items()}
    assert all(torch.equal(found["rlhf"][name], tensor) for name, tensor in found["all w=1"].items())
    assert any(not torch.equal(found["sft"][name], tensor) for name, tensor in found["all w=1"].items())
    assert not (tmp_path / "candidates").exists(), "a merge is not written to be measured"
