"""A part is what torch's AdamW would move: its views are the parameter's own memory, its update torch's step."""

from __future__ import annotations

import torch

from mergetool.optim.parts import AdamPart, Binding
from mergetool.optim.passes import update_moments
from mergetool.optim.sharding import Shard


def test_its_update_is_the_step_that_torch_makes() -> None:
    start = torch.randn(64, 3)
    p, other = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    state = {"step": torch.tensor(0.0), "exp_avg": torch.zeros(64, 3), "exp_avg_sq": torch.zeros(64, 3)}
    group = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.1}
    torchs = torch.optim.AdamW([other], **group)
    for step in range(3):
        p.grad = other.grad = torch.randn(64, 3, generator=torch.Generator().manual_seed(step))
        state["step"] += 1
        part = AdamPart.of(p, state, group, Binding("w", Shard((64, 3), (64, 3), (0, 0))))
        update_moments([part], compile=False)
        part.theta.mul_(part.decay).add_(part.update.block(0, 192))
        torchs.step()
    torch.testing.assert_close(p, other, rtol=1e-6, atol=1e-7)
    assert part.theta.data_ptr() == p.data_ptr()
    assert part.m.data_ptr() == state["exp_avg"].data_ptr()
