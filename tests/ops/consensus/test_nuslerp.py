"""The arc goes from one vector to the other by the share of the weights, for whole tensors, rows or columns."""

from __future__ import annotations

import pytest
import torch

from tests.helpers import combined

WHOLE = {"nuslerp_flatten": True, "nuslerp_row_wise": False}
LAST, FIRST = {"nuslerp_flatten": False, "nuslerp_row_wise": False}, {"nuslerp_flatten": False, "nuslerp_row_wise": True}


def pair(shape: tuple[int, ...]) -> list[torch.Tensor]:
    return [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(2)]


def angle(x: torch.Tensor, y: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.acos(torch.nn.functional.cosine_similarity(x.double(), y.double(), dim=dim))


@pytest.mark.parametrize(("options", "dim"), [(LAST, 1), (FIRST, 0)])
def test_unit_vectors_turn_by_the_share_of_their_angle(options: dict, dim: int) -> None:
    a, b = (x / x.norm(dim=dim, keepdim=True) for x in pair((6, 20)))
    found = combined("nuslerp", [a, b], options, [0.25, 0.75])
    torch.testing.assert_close(angle(a, found, dim), 0.75 * angle(a, b, dim), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.norm(dim=dim), torch.ones(found.shape[1 - dim]), rtol=1e-5, atol=1e-5)


def test_a_tensor_is_one_vector_where_it_is_flattened_or_has_one_axis() -> None:
    a, b = pair((6, 20))
    whole = combined("nuslerp", [a, b], WHOLE, [0.4, 0.6])
    assert torch.equal(whole.flatten(), combined("nuslerp", [a.flatten(), b.flatten()], LAST, [0.4, 0.6]))
    assert not torch.equal(whole, combined("nuslerp", [a, b], LAST, [0.4, 0.6]))


@pytest.mark.parametrize("options", [WHOLE, LAST])
def test_opposite_and_equal_vectors_take_the_straight_line(options: dict) -> None:
    a, _ = pair((3, 8))
    torch.testing.assert_close(combined("nuslerp", [a, -a], options, [3.0, 1.0]), a / 2)
    assert torch.equal(combined("nuslerp", [a, a], options, [3.0, 1.0]), a)


def test_weights_that_cancel_out_are_halves() -> None:
    a, b = pair((30,))
    assert torch.equal(combined("nuslerp", [a, b], WHOLE, [1.0, -1.0]), combined("nuslerp", [a, b], WHOLE, [1.0, 1.0]))
