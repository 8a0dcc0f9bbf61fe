"""A step takes each tensor on its own road, and they do not disturb one another."""

from __future__ import annotations

import pytest
import torch

from mergetool.optim import OnDARE, OnTIES
from tests.optim.scenes import deltas, gradients, parameters, run


@pytest.mark.parametrize("cls", [OnDARE, OnTIES])
@pytest.mark.parametrize("settings", [{"density": 0.01}, {"density": 0.3}, {"density": 0.3, "every": 2, "weight_decay": 0.1}])
def test_each_tensor_moves_as_it_does_alone(cls: type, settings: dict) -> None:
    common = {"lr": 1e-3, "alpha": 0.1, "seed": 3, **settings}
    together = parameters()
    run(cls(together, reference=deltas(), **common), together, 4)
    for i, (name, p) in enumerate(together):
        alone = [parameters()[i]]
        optimizer = cls(alone, reference={name: deltas()[name]}, **common)
        for step in range(4):
            alone[0][1].grad = gradients(step)[name]
            optimizer.step()
        assert torch.equal(alone[0][1], p), name


def test_types_of_one_group_take_different_roads_in_one_step() -> None:
    wide, narrow = parameters()[1], ("narrow", torch.nn.Parameter(torch.zeros(64, 65, dtype=torch.bfloat16)))
    optimizer = OnDARE([wide, narrow], lr=1e-2, density=1.0)
    before = wide[1].detach().clone()
    for _, p in (wide, narrow):
        p.grad = torch.ones_like(p)
    optimizer.step()
    torch.testing.assert_close(wide[1].detach(), before - 1e-2, rtol=1e-5, atol=1e-6)
    assert abs(float(narrow[1].detach().double().mean()) + 1e-2) < 1e-5
