"""A combination by vectors is the sum with the coefficients of each vector; equal inputs come back bit for bit."""

from __future__ import annotations

import pytest
import torch

from mergetool.ops.consensus.combination import Coefficients, Combination, norms
from mergetool.ops.gram import Groups


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_each_entry_takes_the_coefficients_of_its_vector(axis: int | None) -> None:
    shape, rng = (4, 6), torch.Generator().manual_seed(0)
    groups = Groups.whole(shape) if axis is None else Groups.along(shape, axis)
    values = torch.rand(groups.count, 3, generator=rng, dtype=torch.float64)
    tensors = [torch.randn(shape, generator=rng) for _ in range(3)]
    part = Combination().at(Coefficients(groups, values), 0, 24)
    found = Combination().combine([t.flatten() for t in tensors], part, lambda what: torch.empty(24)).view(shape)
    by_entry = values[groups.of(0, 24, torch.device("cpu"))].view(*shape, 3)
    expected = sum(by_entry[..., i] * tensor.double() for i, tensor in enumerate(tensors))
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("axis", [None, 0])
def test_equal_inputs_with_weights_of_sum_one_come_back_bit_for_bit(axis: int | None) -> None:
    groups = Groups.whole((2, 3)) if axis is None else Groups.along((2, 3), axis)
    x = torch.tensor([-0.0, 0.1, 1e-38, -3.0, 0.0, 7.7])
    values = torch.tensor([[0.1, 0.2, 0.7]], dtype=torch.float64).expand(groups.count, -1)
    found = Combination().combine([x, x, x], Combination().at(Coefficients(groups, values), 0, 6), lambda what: torch.empty(6))
    assert torch.equal(found.view(torch.int32), x.view(torch.int32))


def test_norms_are_the_roots_of_the_diagonal() -> None:
    gram = torch.tensor([[[4.0, 1.0], [1.0, 9.0]], [[0.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    assert norms(gram).tolist() == [[2.0, 3.0], [0.0, 1.0]]
