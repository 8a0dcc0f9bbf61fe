"""The largest updates are found exactly, whatever the sample says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mergetool.optim.deltas import AdamDelta
from mergetool.optim.largest import threshold, top_k
from mergetool.optim.sharding import Shard


def moments(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    m = torch.randn(n, generator=rng) * torch.logspace(-6, 0, n)
    return m, (m * torch.rand(n, generator=rng) * 3).square()


@pytest.mark.parametrize("density", [5e-4, 0.02, 0.3])
@pytest.mark.parametrize("eps", [1e-8, 1e-3])
@pytest.mark.parametrize("kind", ["spread", "ties", "zeros"])
def test_the_largest_adam_updates_are_the_stable_sorts(density: float, eps: float, kind: str) -> None:
    n = 600_000
    m, v = moments(n)
    if kind == "ties":  # the first step of Adam: every magnitude is η
        v = m.square()
    elif kind == "zeros":
        m[torch.rand(n, generator=torch.Generator().manual_seed(1)) < 0.999] = 0
    delta = AdamDelta(m, v, 3, 1e-3, (0.9, 0.999), eps)
    whole, k = Shard((n,), (n,), (0,)), int(density * n)
    values = delta.block(0, n)
    expected = np.sort(np.argsort(-values.abs().numpy(), kind="stable")[:k])
    index, value = top_k(delta, whole, k)
    assert np.array_equal(index.numpy(), expected)
    assert torch.allclose(value, values[index], rtol=1e-6)
    bound = threshold(delta, whole, k)
    assert bound.value == pytest.approx(float(values.abs()[expected].min()))
