"""Both ways give the best approximation: its error is what the singular values that are left out say (Eckart and Young)."""

from __future__ import annotations

import pytest
import torch

from mergetool.ops.low_rank import LowRank, of_matrix, of_product


def matrix(rows: int, columns: int, rank: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(rows * columns)
    rank = rank or min(rows, columns)
    return torch.randn(rows, rank, generator=rng), torch.randn(rank, columns, generator=rng)


def check(found: LowRank, whole: torch.Tensor, rank: int) -> None:
    values = torch.linalg.svdvals(whole.double())
    error = torch.linalg.norm(whole.double() - found.left.double() @ found.right.double())
    assert found.left.shape[1] == found.right.shape[0] == rank
    assert float(error) == pytest.approx(float(values[rank:].square().sum().sqrt()), rel=1e-4, abs=1e-4)
    assert found.total == pytest.approx(float(values.square().sum()), rel=1e-5)
    assert found.kept == pytest.approx(float(values[:rank].square().sum()), rel=1e-5)
    torch.testing.assert_close(
        torch.linalg.norm(found.left, dim=0), torch.linalg.norm(found.right, dim=1), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("shape", [(5000, 6), (6, 5000), (12, 12)])
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_of_a_matrix(shape: tuple[int, int], rank: int) -> None:
    left, right = matrix(*shape)
    check(of_matrix(left @ right, rank), left @ right, rank)


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_of_a_product(shape: tuple[int, int], rank: int) -> None:
    left, right = matrix(*shape, rank=8)
    check(of_product(left, right, rank), left @ right, rank)


def test_a_matrix_of_lower_rank_comes_back_and_zero_is_zero() -> None:
    left, right = matrix(40, 30, rank=2)
    found = of_matrix(left @ right, 5)
    torch.testing.assert_close(found.left @ found.right, left @ right, rtol=1e-4, atol=1e-4)
    nothing = of_matrix(torch.zeros(4, 3), 2)
    assert nothing.total == 0.0
    assert not nothing.left.any()
    assert not nothing.right.isnan().any()


def test_a_rank_beyond_the_smaller_side_is_that_side() -> None:
    left, right = matrix(9, 4)
    assert of_matrix(left @ right, 50).left.shape == (9, 4)
    assert of_product(*matrix(9, 4, rank=7), 50).left.shape[1] == 4
