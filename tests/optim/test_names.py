"""A parameter has one name, whatever wraps its model; an optimizer's group gets the names of its parameters."""

from __future__ import annotations

import pytest
import torch

from mergetool.errors import RecipeError
from mergetool.optim.names import attach, canonical, name_of, named


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("model.norm.weight", "model.norm.weight"),
        ("_orig_mod.model.norm.weight", "model.norm.weight"),
        ("module.module.model.norm.weight", "model.norm.weight"),
        ("model.layers.0._fsdp_wrapped_module._checkpoint_wrapped_module.mlp.weight", "model.layers.0.mlp.weight"),
        ("model.module.weight", "model.module.weight"),
        ("module", "module"),
    ],
)
def test_wrappers_leave_no_trace(name: str, want: str) -> None:
    assert canonical(name) == want


def test_a_compiled_models_parameters_have_the_models_names() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    compiled = torch.compile(model)
    assert isinstance(compiled, torch.nn.Module)
    for source in (model, compiled, dict(model.named_parameters()), list(model.named_parameters())):
        assert named(source) == {id(model[0].weight): "0.weight", id(model[0].bias): "0.bias"}


def test_a_group_gets_names_once_and_a_stranger_is_refused() -> None:
    model = torch.nn.Linear(2, 3)
    group = {"params": [model.bias]}
    attach(group, named(model))
    assert name_of(group, 0, 5) == "bias"
    assert name_of({"params": [model.bias]}, 0, 5) == "5.0", "without names the place is its name"
    with pytest.raises(RecipeError, match="1 of 1 parameters in a group are not among the `names` given"):
        attach({"params": [torch.nn.Parameter(torch.zeros(1))]}, named(model))
