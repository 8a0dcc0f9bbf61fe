"""What a step of torch's own optimizers keeps is asked of them: a state that is not theirs is refused before it is loaded."""

from __future__ import annotations

import pytest
import torch

from mergetool.errors import CheckpointError
from mergetool.optim.wrapped_state import wrapped_state
from tests.optim.test_namespace import DENSE, LR


@pytest.mark.parametrize("cls", [cls for cls in DENSE if cls is not torch.optim.LBFGS])
@pytest.mark.parametrize("shape", [(5, 7), (1, 7)])
def test_what_every_optimizer_of_torch_keeps_is_taken_as_it_is_and_refused_when_cut(cls: type, shape: tuple[int, ...]) -> None:
    p = torch.nn.Parameter(torch.randn(shape))
    base = cls([p], lr=LR, **({"momentum": 0.9} if cls is torch.optim.SGD else {}))
    p.grad = torch.randn(shape)
    base.step()
    state, group = dict(base.state[p]), base.param_groups[0]
    found = wrapped_state(state, p, base, group, "w")
    assert set(found) == set(state)
    assert all(found[key] is value or torch.equal(found[key], value) for key, value in state.items())
    assert torch.equal(base.state[p][next(iter(state))], state[next(iter(state))])  # the base was not touched
    for key, value in state.items():
        if isinstance(value, torch.Tensor) and value.dim():
            for wrong in (value[..., :-1], value.flatten(), value.to(torch.int64), value.sum(), None):
                with pytest.raises(CheckpointError, match=f"{key} of w"):
                    wrapped_state(state | {key: wrong}, p, base, group, "w")
        with pytest.raises(CheckpointError, match=f"has no {key}"):
            wrapped_state({k: v for k, v in state.items() if k != key} | {"merge_step": 1}, p, base, group, "w")
    with pytest.raises(CheckpointError, match="has other, which"):
        wrapped_state(state | {"other": 1}, p, base, group, "w")


def test_of_an_optimizer_that_is_not_torchs_merging_checks_its_own_part() -> None:
    class Theirs(torch.optim.SGD):
        pass

    p = torch.nn.Parameter(torch.zeros(3))
    base = Theirs([p], lr=LR)
    assert wrapped_state({"low_rank": torch.zeros(9)}, p, base, {}, "w")["low_rank"].numel() == 9
    with pytest.raises(CheckpointError, match=r"anchor of w has the shape \[2\]"):
        wrapped_state({"anchor": torch.zeros(2)}, p, base, {}, "w")
