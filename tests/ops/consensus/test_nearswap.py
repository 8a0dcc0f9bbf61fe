"""No entry moves by more than t, and an entry that is nearer than t becomes the other model's."""

from __future__ import annotations

import pytest
import torch

from tests.helpers import combined


@pytest.mark.parametrize("t", [0.01, 0.3])
def test_an_entry_moves_by_t_at_most(t: float) -> None:
    a, b = (torch.randn(500, generator=torch.Generator().manual_seed(i)) for i in range(2))
    found = combined("nearswap", [a, b], {"t": t})
    torch.testing.assert_close(found, a + (b - a).clamp(-t, t))
    near = (b - a).abs() <= t * (1 - 1e-6)
    assert bool(near.any())
    assert torch.equal(found[near], b[near])


def test_below_a_millionth_it_is_the_share_that_mergekit_gives() -> None:
    a, b = torch.zeros(1), torch.full((1,), 1e-7)
    torch.testing.assert_close(combined("nearswap", [a, b], {"t": 5e-7}), torch.full((1,), 5e-8))
    assert torch.equal(combined("nearswap", [a, b], {"t": -1.0}), a)
