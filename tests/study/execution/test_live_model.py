"""The live model is filled wholly or not at all."""

import pytest
import torch

from mergetool.study.execution.live_model import LiveModel


def test_the_live_model_takes_every_weight_or_says_which_is_missing(folder):
    live = LiveModel(folder / "sft")
    weights = {
        name: torch.full_like(tensor, 2.0) for name, tensor in live.model.state_dict().items() if name != "lm_head.weight"
    }  # tied: on disk once
    live.put(weights.items(), "x")
    assert all(bool((parameter == 2.0).all()) for parameter in live.model.parameters())
    weights.pop("model.norm.weight")
    with pytest.raises(Exception, match=r"x: no tensor 'model\.norm\.weight' \(1 missing\)"):
        live.put(weights.items(), "x")
