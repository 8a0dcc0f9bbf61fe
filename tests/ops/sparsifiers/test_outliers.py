"""Model Breadcrumbs keeps a band of magnitudes."""

from __future__ import annotations

import pytest
import torch

from mergetool.ops.blocks import reader
from mergetool.ops.sparsifiers import outliers


@pytest.mark.parametrize(("density", "gamma"), [(0.5, 0.01), (0.9, 0.01), (0.9, 0.2), (0.2, 0.0), (0.01, 0.5)])
def test_breadcrumbs_keeps_the_band_below_the_outliers(density: float, gamma: float) -> None:
    x = torch.randn(10_007, generator=torch.Generator().manual_seed(2))
    target, n_top = int(density * x.numel()), int(gamma * x.numel())
    bottom = max(0, x.numel() - target - n_top)
    order = torch.argsort(x.abs())
    expected = torch.zeros_like(x)
    expected[order[bottom : bottom + target]] = x[order[bottom : bottom + target]]
    band = outliers.outlier_thresholds(reader(x), x.numel(), density, gamma)
    assert torch.equal(outliers.trim_band(x.clone(), band), expected)
    parts = [outliers.trim_band(x[a : a + 999].clone(), band, a) for a in range(0, x.numel(), 999)]
    assert torch.equal(torch.cat(parts), expected)
