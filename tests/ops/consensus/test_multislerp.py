"""The result has the direction of the mean of the unit vectors and the mean of the lengths, as the way along the sphere has."""

from __future__ import annotations

import pytest
import torch

from tests.helpers import combined

OPTIONS = {"normalize_weights": True, "eps": 1e-8}


def along_the_sphere(tensors: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
    """As it is told: tangents at the normalised mean, their weighted mean, and the exponential map of that."""
    x, w = torch.stack([t.double().flatten() for t in tensors]), torch.tensor(weights, dtype=torch.float64).view(-1, 1)
    w = w / w.sum()
    units = x / x.norm(dim=1, keepdim=True)
    mean = (w * units).sum(0)
    mean = mean / mean.norm()
    tangent = (w * (units - (units @ mean).view(-1, 1) * mean)).sum(0)
    length = tangent.norm()
    way = mean * length.cos() + (tangent / length * length.sin() if length > 1e-12 else 0.0)
    return (way * (w * x.norm(dim=1, keepdim=True)).sum()).view(tensors[0].shape)


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.2, 0.5, 2.0]])
def test_it_is_where_the_way_along_the_sphere_ends(weights: list[float]) -> None:
    tensors = [torch.randn(12, 10, generator=torch.Generator().manual_seed(i)) * (i + 1) for i in range(3)]
    found = combined("multislerp", tensors, OPTIONS, weights)
    torch.testing.assert_close(found.double(), along_the_sphere(tensors, weights), rtol=1e-6, atol=1e-6)


def test_directions_that_cancel_out_and_zeros_leave_the_weighted_sum() -> None:
    x = torch.randn(20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(combined("multislerp", [x, -x], OPTIONS, [1.0, 1.0]), torch.zeros(20))
    assert not combined("multislerp", [torch.zeros(20)] * 3, OPTIONS, [1.0, 2.0, 3.0]).any()


def test_one_model_is_itself() -> None:
    x = torch.randn(20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(combined("multislerp", [x], OPTIONS, [0.3]), x)
