"""The shares of several maps are those of the dense formula in fp64, whichever way they are made."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mergetool.ops.projection import Moments
from mergetool.ops.regression import Shares, shares

N = 24


def second_moment(seed: int, n: int = N, spread: float = 2.0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(6 * n, n, generator=rng, dtype=torch.float64) * torch.logspace(0, -spread, n, dtype=torch.float64)
    return (x @ torch.linalg.qr(torch.randn(n, n, generator=rng, dtype=torch.float64))[0]).T.cov(correction=0)


def kept(c: torch.Tensor, rank: int) -> Moments:
    values, vectors = torch.linalg.eigh(c)
    return Moments(values.flip(0)[:rank].float(), vectors.flip(1)[:, :rank].float(), float(c.trace()))


def as_known(moments: Moments) -> np.ndarray:
    """The C that eigenpairs and a trace stand for."""
    values, vectors = moments.values.double().numpy(), moments.vectors.double().numpy()
    rank = values.size
    rest = max(moments.trace - values.sum(), 0.0) / max(moments.size - rank, 1) if rank < moments.size else 0.0
    return vectors @ np.diag(values - rest) @ vectors.T + rest * np.eye(moments.size)


def by_formula(grams: list[np.ndarray], weights: list[float], off_diagonal: float) -> list[np.ndarray]:
    scaled = [w * (off_diagonal * c + (1 - off_diagonal) * np.diag(np.diag(c))) for c, w in zip(grams, weights, strict=True)]
    return [g @ np.linalg.inv(sum(scaled)) for g in scaled]


def whole(made: Shares, i: int) -> np.ndarray:
    size = made.diagonal[i].numel()
    own = made.back(made.seen(i, torch.eye(size, dtype=torch.float64))) if made.left is not None else 0.0
    return (torch.diag(made.diagonal[i]) + own).numpy()


@pytest.mark.parametrize("off_diagonal", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("rank", [3, 5, 9, N])
def test_they_are_those_of_the_dense_formula(rank: int, off_diagonal: float) -> None:
    found = [kept(second_moment(seed), rank) for seed in range(2)]
    made = shares(found, [0.3, 1.7], off_diagonal)
    assert made is not None
    assert (made.right is None) == (4 * rank >= N or off_diagonal == 0)  # two times rank 5 are kept as factors
    expected = by_formula([as_known(one) for one in found], [0.3, 1.7], off_diagonal)
    for i, one in enumerate(expected):
        assert np.abs(whole(made, i) - one).max() < 1e-6 * np.abs(one).max()
    assert np.abs(sum(whole(made, i) for i in range(2)) - np.eye(N)).max() < 1e-9


def test_factors_and_the_whole_matrix_agree_where_second_moments_are_far_from_round() -> None:
    """Eigenvalues over eight orders of magnitude, as of a model's hidden states."""
    n, rank = 400, 40
    found = [kept(second_moment(seed, n, spread=4.0), rank) for seed in range(3)]
    made = shares(found, [1.0, 0.5, 2.0], 0.9)
    assert made is not None
    assert made.right is not None
    for i, one in enumerate(by_formula([as_known(each) for each in found], [1.0, 0.5, 2.0], 0.9)):
        assert np.abs(whole(made, i) - one).max() < 1e-7 * np.abs(one).max()


def test_maps_that_read_the_same_have_their_weights_as_shares() -> None:
    one = kept(second_moment(0), 4)
    made = shares([one, one, one], [1.0, 1.0, 2.0], 0.9)
    assert made is not None
    assert np.abs(whole(made, 2) - 0.5 * np.eye(N)).max() < 1e-9


def test_where_no_input_reaches_the_shares_are_the_weights() -> None:
    c = second_moment(0)
    c[:5], c[:, :5] = 0.0, 0.0
    for rank in (4, N):
        made = shares([kept(c, rank)._replace(trace=math.fsum(kept(c, rank).values.tolist()))] * 2, [1.0, 3.0], 1.0)
        assert made is not None
        assert np.abs(whole(made, 0)[:5, :5] - 0.25 * np.eye(5)).max() < 1e-6
    assert shares([None, Moments(torch.zeros(3), None, 0.0)], [1.0, 1.0], 0.9) is None


def test_a_diagonal_is_shared_entry_by_entry_and_a_map_without_inputs_has_no_say() -> None:
    counts = [Moments(torch.tensor(values), None, sum(values)) for values in ([1.0, 0.0, 3.0, 0.0], [1.0, 2.0, 1.0, 0.0])]
    made = shares(counts, [1.0, 2.0], 0.9)
    assert made is not None
    assert made.left is None
    assert torch.allclose(made.diagonal[0], torch.tensor([1 / 3, 0.0, 0.6, 1 / 3], dtype=torch.float64), atol=1e-8)
    alone = shares([kept(second_moment(1), 5), None], [1.0, 9.0], 0.9)
    assert alone is not None
    assert np.abs(whole(alone, 0) - np.eye(N)).max() < 1e-5


def test_the_anchors_share_is_left_out_and_changes_no_other() -> None:
    found = [kept(second_moment(seed), 4) for seed in range(3)]
    all_of_them, some = shares(found, [1.0, 2.0, 1.0], 0.9), shares(found, [1.0, 2.0, 1.0], 0.9, anchor=1)
    assert all_of_them is not None
    assert some is not None
    assert some.left is not None
    assert some.left[1].numel() == 0
    assert np.array_equal(whole(some, 2), whole(all_of_them, 2))
    assert np.array_equal(whole(some, 0), whole(all_of_them, 0))
