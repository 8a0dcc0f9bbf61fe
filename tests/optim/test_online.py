"""Online merging around any optimizer is that optimizer's step, merged."""

from __future__ import annotations

import pytest
import torch

from mergetool.optim import OnlineMerge
from tests.optim.scenes import deltas, parameters, run, values


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, arXiv 2302.06675, in its plain form."""

    def __init__(self, params, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if len(state) == 0:
                    state["exp_avg"] = torch.zeros_like(p)
                p.add_(torch.sign(state["exp_avg"].mul(0.9).add(p.grad, alpha=0.1)), alpha=-group["lr"])
                state["exp_avg"].mul_(0.99).add_(p.grad, alpha=0.01)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize(
    "base",
    [
        lambda ps: torch.optim.SGD(ps, lr=0.1),
        lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9),
        lambda ps: Lion(ps, lr=1e-3),
        lambda ps: torch.optim.Adafactor(ps, lr=1e-3),
    ],
)
def test_online_merge_serves_any_optimizer(base, every: int) -> None:
    tau = deltas()
    plain, ours = parameters(), parameters()
    before = values(ours)
    reference = base(plain)
    optimizer = OnlineMerge(base(ours), method="dare", density=1.0, alpha=0.25, every=every, reference=tau)
    for step in range(every):
        run(reference, plain, 1, first=step)
        run(optimizer, ours, 1, first=step)
    for (name, a), (_, b) in zip(ours, plain, strict=True):
        expected = before[name] + 0.75 * (b - before[name]) + 0.25 * tau[name]
        assert (a - expected).abs().max() < 1e-7, name


def test_the_wrapper_shares_groups_and_state_with_its_base() -> None:
    base = torch.optim.Adam(parameters(), lr=1e-3)
    optimizer = OnlineMerge(base, density=0.5)
    for group in optimizer.param_groups:
        group["lr"] = 7e-4
    assert base.param_groups[0]["lr"] == 7e-4
    optimizer.add_param_group({"params": [("new", torch.nn.Parameter(torch.ones(3)))]})
    assert len(base.param_groups) == 2
    optimizer.load_state_dict(optimizer.state_dict())
    assert base.param_groups is optimizer.param_groups
    assert base.state is optimizer.state
