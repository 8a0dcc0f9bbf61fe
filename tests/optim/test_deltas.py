"""A delta read by blocks, at scattered entries and by its largest entries is one and the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mergetool.optim.deltas import AdamDelta, Delta, padded_flags, since, stored, where_set


def test_a_difference_from_the_anchor_is_exact() -> None:
    anchor = torch.randn(1000) * 0.02
    theta = anchor + torch.randn(1000) * 1e-6
    delta = since(theta, anchor, 1.0)
    assert torch.equal(delta.block(0, 1000).double(), theta.double() - anchor.double())


def some(kind: str, n: int) -> Delta:
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(n, generator=rng), torch.randn(n, generator=rng)
    if kind == "adam":
        return AdamDelta(a, b.square(), 4, 1e-2, (0.9, 0.999), 1e-8)
    if kind == "since":
        return since(a.bfloat16(), b.bfloat16(), 0.9)
    return stored(a, b if kind == "difference" else None)


@pytest.mark.parametrize("kind", ["adam", "since", "difference", "stored"])
def test_every_way_of_reading_it_gives_the_same_numbers(kind: str) -> None:
    n = 300_007
    delta = some(kind, n)
    whole = delta.block(0, n).clone()
    index = torch.tensor([0, 5, 200_000, n - 1])
    assert torch.equal(delta.take(index), whole[index])
    assert torch.equal(delta.block(1000, 2000), whole[1000:2000])
    top, bottom = delta.operands(10, 20)
    assert torch.equal(top.float() if bottom is None else top.float() - bottom.float(), whole[10:20])
    low = float(whole.abs().quantile(0.999)) if n < 1 << 24 else 0.0
    at, value = delta.above(low)
    assert np.array_equal(at, np.flatnonzero(whole.abs().numpy() > np.float32(low)))
    assert np.array_equal(value, whole.numpy()[at])


def test_flags_are_found_where_they_are_set() -> None:
    flags = padded_flags(1001)
    flags[:1001] = 0
    flags[[0, 7, 8, 999, 1000]] = 1
    assert where_set(flags).tolist() == [0, 7, 8, 999, 1000]
