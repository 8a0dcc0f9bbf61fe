"""Select, calculate, erase, against the same written with a sort of the whole tensor."""

from __future__ import annotations

import pytest
import torch

from mergetool.ops.consensus.sce import variance
from tests.helpers import combined


def plain(deltas: list[torch.Tensor], share: float) -> torch.Tensor:
    x = torch.stack([d.double() for d in deltas])
    spread = variance(deltas)
    mask = torch.zeros_like(spread)
    mask[torch.argsort(spread, descending=True, stable=True)[: int(share * int((spread > 0).sum()))]] = 1.0
    x = x * (mask if share < 1 else 1.0)
    weights = x.square().sum(1) / x.square().sum()
    sign = torch.where(x.sum(0) >= 0, 1.0, -1.0)
    part = weights.view(-1, 1) * (x * sign > 0)
    return (x * part).sum(0) / part.sum(0).clamp_min(1e-6)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
def test_it_is_what_sorting_gives(count: int, share: float) -> None:
    deltas = [torch.randn(1000, generator=torch.Generator().manual_seed(i)) * (i + 1) for i in range(count)]
    for delta in deltas:
        delta[::7] = 0.5  # entries that do not vary are not among those that the share is of
    found = combined("sce", deltas, {"select_topk": share})
    expected = plain(deltas, share) if share else torch.zeros(1000, dtype=torch.float64)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_tiny_deltas_have_equal_weights_as_in_mergekit() -> None:
    torch.testing.assert_close(
        combined("sce", [torch.full((4,), 1e-4), torch.full((4,), 3e-4)], {"select_topk": 1.0}), torch.full((4,), 2e-4)
    )


def test_the_variance_is_torchs() -> None:
    tensors = [torch.randn(500, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    torch.testing.assert_close(variance(tensors), torch.stack(tensors).var(0, unbiased=False), rtol=1e-6, atol=0)
