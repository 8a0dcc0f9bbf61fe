"""A checkpoint whose weights are all 0 was never written; one weight is enough to be a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergetool.errors import CheckpointError
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
from tests.helpers import random_weights, write_checkpoint


@pytest.mark.parametrize("one", [False, True])
def test_all_weights_zero_is_an_error(tmp_path: Path, one: bool) -> None:
    weights = {name: torch.zeros_like(weight) for name, weight in random_weights(0).items()}
    weights["model.norm.weight"][-1] = float(one)
    places = [write_checkpoint(tmp_path / "zero", weights), write_checkpoint(tmp_path / "other", random_weights(1))]
    models = [{"model": str(place), "parameters": {"weight": 0.5}} for place in places]
    plan = plan_merge(MergeRecipe.model_validate({"merge_method": "linear", "models": models}))
    if one:
        merge_to_directory(plan, tmp_path / "out")
        return
    with pytest.raises(CheckpointError, match="zero: all of its weights are 0"):
        merge_to_directory(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
