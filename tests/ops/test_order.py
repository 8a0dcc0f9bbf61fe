"""The entry at a place of the ascending order is the one that sorting puts there."""

from __future__ import annotations

import pytest
import torch

from mergetool.ops.blocks import reader
from mergetool.ops.order import order_statistics


@pytest.mark.parametrize("shift", [-10.0, -0.5, 0.0, 10.0])
@pytest.mark.parametrize("numel", [1, 2, 1001, 300_000])
def test_it_is_what_sorting_finds(numel: int, shift: float) -> None:
    x = torch.randn(numel, generator=torch.Generator().manual_seed(numel)) + shift
    x[::3] = x[0]  # many entries of one value
    places = sorted({0, numel // 4, numel // 3, numel // 2, numel * 3 // 4, numel - 1})
    assert order_statistics(reader(x), numel, places) == [float(v) for v in x.sort().values[places]]


def test_zeros_lie_between_the_signs() -> None:
    x = torch.tensor([0.0, -1.0, 2.0, -0.0, 0.0, -3.0])
    assert order_statistics(reader(x), 6, range(6)) == [-3.0, -1.0, 0.0, 0.0, 0.0, 2.0]
