"""DARE keeps entries at random, the same ones in parts as in the whole, and rescaling keeps the expectation."""

from __future__ import annotations

import pytest
import torch

from mergetool.ops.noise import stream_key
from mergetool.ops.rescale import rescale_factor
from mergetool.ops.sparsifiers import random


def dropped(x: torch.Tensor, key: int, density: float, start: int = 0) -> torch.Tensor:
    y = x.clone()
    assert random.drop(y, key, density, start) == int(y.count_nonzero()) + int((x == 0).sum() if density == 1 else 0)
    return y


@pytest.mark.parametrize("density", [0.01, 0.5])
def test_a_drop_applied_in_parts_equals_a_drop_of_the_whole(density: float) -> None:
    x = torch.randn(200_000)
    key = stream_key(0, 0, "m", "w")
    whole = dropped(x, key, density)
    parts = [dropped(x[a : a + 9_999], key, density, a) for a in range(0, x.numel(), 9_999)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(whole[whole != 0], x[whole != 0])


@pytest.mark.parametrize("density", [0.01, 0.3])
def test_unbiased_rescaling_keeps_the_expectation(density: float) -> None:
    x = torch.ones(1 << 20)
    key = stream_key(0, 0, "m", "w")
    mean = dropped(x, key, density).mul_(rescale_factor("unbiased", density)).mean().item()
    sigma = ((1 - density) / density / x.numel()) ** 0.5
    assert abs(mean - 1) < 5 * sigma


def test_density_one_keeps_everything() -> None:
    x = torch.randn(1000)
    assert torch.equal(dropped(x, 1, 1.0), x)
