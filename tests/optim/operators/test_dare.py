"""OnDARE's kernel keeps what its masks keep."""

from __future__ import annotations

import pytest
import torch

from mergetool.ops.masks import lane_threshold, random_mask
from mergetool.ops.noise import signed, stream_key
from mergetool.optim.kernels import Draw
from mergetool.optim.operators.dare import keep_random, keep_random_tied, weighted_sum

KEY = stream_key(1, 2, "0", "w")


@pytest.mark.parametrize("density", [0.5, 0.3])
def test_the_kernels_decisions_are_the_masks(density: float) -> None:
    x = torch.randn(1 << 18)
    whole, tie = lane_threshold(density)
    zero = torch.tensor(0)
    draw = Draw(torch.tensor(signed(KEY)), torch.tensor(whole), torch.tensor(tie), zero, zero)
    keep = keep_random_tied if tie else keep_random
    assert torch.equal(keep(x, torch.arange(7, 7 + x.numel()), draw), x * random_mask(KEY, density, 7, x.numel()))
    assert (tie != 0) == (density == 0.3)


def test_the_sum_is_weighted() -> None:
    one = torch.tensor([1.0])
    assert weighted_sum(one, 2 * one, torch.tensor(0.75), torch.tensor(0.25)).item() == 1.25
    assert weighted_sum(one, None, torch.tensor(0.75), torch.tensor(0.25)).item() == 0.75
