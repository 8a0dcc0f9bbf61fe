"""DELLA keeps larger entries more often, row by row."""

from __future__ import annotations

import pytest
import torch

from mergetool.ops.sparsifiers import della


@pytest.mark.parametrize(("density", "epsilon"), [(0.5, 0.15), (0.7, 0.05)])
def test_della_keeps_larger_entries_more_often_and_is_unbiased(density: float, epsilon: float) -> None:
    rows, width = 4000, 50
    magnitudes = torch.arange(1, width + 1).float()[torch.randperm(width, generator=torch.Generator().manual_seed(0))]
    x = magnitudes.repeat(rows, 1).flatten()
    y = x.clone()
    kept = della.drop_ranked(y, 77, density, epsilon, width, unbiased=True)
    on = (y != 0).view(rows, width)
    assert kept == int(on.sum())
    expected = density - epsilon + (magnitudes - 1) / (width - 1) * 2 * epsilon
    spread = 5 * (expected * (1 - expected) / rows).sqrt()
    assert ((on.float().mean(0) - expected).abs() < spread).all()
    mean = y.view(rows, width).mean(0) / magnitudes
    assert ((mean - 1).abs() < spread / expected).all()


def test_della_applied_in_rows_equals_della_of_the_whole_and_survivors_keep_their_value() -> None:
    x = torch.randn(60 * 128)
    whole = x.clone()
    della.drop_ranked(whole, 5, 0.5, 0.2, 128, unbiased=False)
    parts = [x[a : a + 256].clone() for a in range(0, x.numel(), 256)]
    for i, part in enumerate(parts):
        della.drop_ranked(part, 5, 0.5, 0.2, 128, 256 * i, unbiased=False)
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(whole[whole != 0], x[whole != 0])
