"""Sums rounded by a rank are the whole tensor's for the entries that it holds, and right in expectation."""

from __future__ import annotations

import torch

from mergetool.ops.rounding import add_rounded
from mergetool.optim.rounded import rounded_sum, scale_
from mergetool.optim.sharding import Shard

KEY = 12345


def test_a_box_is_rounded_as_the_whole_is() -> None:
    x = torch.randn(20, 30).bfloat16()
    d = torch.randn(20, 30) * 1e-3
    whole = add_rounded(x.flatten(), d.flatten(), KEY, 0, torch.empty(600, dtype=torch.bfloat16)).view(20, 30)
    box = Shard((20, 30), (7, 11), (5, 4))
    here = rounded_sum(x[5:12, 4:15].flatten(), d[5:12, 4:15].flatten(), KEY, box, 0)
    assert torch.equal(here.view(7, 11), whole[5:12, 4:15])


def test_a_decay_below_half_a_unit_is_not_lost() -> None:
    theta = torch.full((100_000,), 1.0, dtype=torch.bfloat16)
    scale_(theta, theta, 1 - 1e-4, KEY, Shard((100_000,), (100_000,), (0,)))
    gap = 2.0**-8  # of bf16 below 1
    assert abs(float(1 - theta.double().mean()) - 1e-4) < 5 * (1e-4 * gap / 100_000) ** 0.5
    wide = torch.ones(3)
    scale_(wide, wide, 0.5, KEY, Shard((3,), (3,), (0,)))
    assert wide.tolist() == [0.5] * 3
