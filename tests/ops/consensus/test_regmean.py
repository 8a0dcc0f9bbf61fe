"""RegMean is the map that no other comes closer than to every model's own, each on its own inputs."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from mergetool.ops.blocks import reader
from mergetool.ops.consensus import WholeInputs
from mergetool.ops.consensus.regmean import CONSENSUS, rows_of
from mergetool.ops.projection import Moments
from mergetool.ops.regression import Shares, Side, Sides, shares
from tests.ops.test_regression import as_known, kept, second_moment


def side(moments: list[Moments | None]) -> Side:
    @cache
    def made(weights: tuple[float, ...], off_diagonal: float, anchor: int) -> Shares | None:
        return shares(moments, weights, off_diagonal, anchor)

    return made


def models(*shape: int, count: int = 2, seed: int = 0) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=rng) for _ in range(count)]


def merged(
    tensors: list[torch.Tensor], sides: Sides | None, weights: list[float], off_diagonal: float = 0.9, blocks: int = 1
) -> torch.Tensor:
    """Put together of blocks of whole products' rows."""
    shape, numel = tuple(tensors[0].shape), tensors[0].numel()
    flat = [one.reshape(-1) for one in tensors]
    reads, ones = [reader(one) for one in tensors], [1.0] * len(tensors)
    inputs = WholeInputs(reads, numel, weights, ones, {"off_diagonal": off_diagonal}, 1, shape, known=sides)
    statistic, step = CONSENSUS.statistic(inputs), blocks * CONSENSUS.together(shape)
    parts = []
    for start in range(0, numel, step):
        stop = min(start + step, numel)
        out = torch.full((stop - start,), torch.nan)
        pieces = [one[start:stop] for one in flat]
        parts.append(CONSENSUS.combine(pieces, CONSENSUS.at(statistic, start, stop), lambda what, out=out: out).clone())
    return torch.cat(parts).view(shape)


def formula(tensors: list[torch.Tensor], moments: list[Moments], weights: list[float], off_diagonal: float) -> np.ndarray:
    grams = [off_diagonal * c + (1 - off_diagonal) * np.diag(np.diag(c)) for c in map(as_known, moments)]
    above = sum(w * t.double().numpy() @ g for w, t, g in zip(weights, tensors, grams, strict=True))
    return above @ np.linalg.inv(sum(w * g for w, g in zip(weights, grams, strict=True)))


@pytest.mark.parametrize("off_diagonal", [0.9, 1.0])
@pytest.mark.parametrize("rank", [4, 24])
def test_it_is_the_dense_formula(rank: int, off_diagonal: float) -> None:
    tensors, found = models(300, 24, count=3), [kept(second_moment(seed), rank) for seed in range(3)]
    weights = [1.0, 0.5, 2.0]
    got = merged(tensors, Sides((side([*found]),)), weights, off_diagonal)
    expected = formula(tensors, found, weights, off_diagonal)
    assert np.abs(got.double().numpy() - expected).max() < 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("rank", [4, 24])
def test_a_weight_that_is_stored_the_other_way_round_gives_the_same_map(rank: int) -> None:
    tensors, found = models(24, 300), side([kept(second_moment(seed), rank) for seed in range(2)])
    across = merged([one.T.contiguous() for one in tensors], Sides((found,)), [1.0, 2.0])
    assert torch.allclose(merged(tensors, Sides((), (found,)), [1.0, 2.0]), across.T, rtol=0, atol=1e-6)


def test_nothing_near_it_is_closer_to_the_models_on_their_own_inputs() -> None:
    tensors, found = models(7, 24, count=3), [kept(second_moment(seed), 24) for seed in range(3)]
    weights = [1.0, 0.5, 2.0]
    best = merged(tensors, Sides((side([*found]),)), weights, off_diagonal=1.0).double().numpy()

    def loss(w: np.ndarray) -> float:
        away = [w - one.double().numpy() for one in tensors]
        return sum(u * np.trace(a @ as_known(c) @ a.T) for u, a, c in zip(weights, away, found, strict=True))

    rng, least = np.random.default_rng(0), loss(best)
    for size in (1e-3, 1e-1, 1.0):
        assert all(loss(best + size * rng.standard_normal(best.shape)) > least for _ in range(50))
    mean = sum(u * one.double().numpy() for u, one in zip(weights, tensors, strict=True)) / sum(weights)
    assert loss(mean) > 1.01 * least
    assert all(loss(one.double().numpy()) > 1.01 * least for one in tensors)


@pytest.mark.parametrize("sides", [None, "same"])
def test_models_that_read_the_same_or_nothing_known_have_the_weighted_mean(sides: str | None) -> None:
    tensors, weights = models(40, 24, count=3), [1.0, 2.0, 5.0]
    known = None if sides is None else Sides((side([kept(second_moment(0), 5)] * 3),))
    mean = sum(w * one.double() for w, one in zip(weights, tensors, strict=True)) / 8
    assert torch.allclose(merged(tensors, known, weights).double(), mean, rtol=0, atol=1e-6)


def test_one_model_is_itself_and_so_are_equal_ones_bit_for_bit() -> None:
    (one,) = models(33, 24, count=1)
    one[3, :5] = -0.0
    for rank in (4, 24):
        found = [kept(second_moment(seed), rank) for seed in range(2)]
        alone = merged([one], Sides((side(found[:1]),)), [3.0])
        for known in (Sides((side([*found]),)), Sides((), (side([kept(second_moment(s, 33), rank) for s in range(2)]),))):
            twice = merged([one, one.clone()], known, [0.3, 0.7])
            assert torch.equal(alone.view(torch.int32), one.view(torch.int32))
            assert torch.equal(twice.view(torch.int32), one.view(torch.int32))


def test_gains_and_tokens_are_shared_entry_by_entry() -> None:
    seen = [torch.tensor([3.0, 0.0, 1.0]), torch.tensor([1.0, 2.0, 0.0])]
    found = side([Moments(one, None, float(one.sum())) for one in seen])
    gains, rows = models(3), models(3, 5)
    share = torch.tensor([0.75, 0.0, 1.0])
    assert torch.allclose(merged(gains, Sides((found,)), [1.0, 1.0]), share * gains[0] + (1 - share) * gains[1], atol=1e-6)
    expected = share[:, None] * rows[0] + (1 - share)[:, None] * rows[1]
    assert torch.allclose(merged(rows, Sides((), (found,)), [1.0, 1.0]), expected, atol=1e-6)


@pytest.mark.parametrize("of_rows", [False, True])
def test_each_matrix_of_a_stack_has_its_own_inputs_and_one_that_nobody_read_is_the_mean(of_rows: bool) -> None:
    tensors = models(3, 24, 24)
    seen = [side([kept(second_moment(2 * m + i), 4) for i in range(2)]) for m in range(2)] + [side([None, None])]
    stack = merged(tensors, Sides((), tuple(seen)) if of_rows else Sides(tuple(seen)), [1.0, 1.0])
    for matrix, one in enumerate(seen[:2]):
        alone = merged([t[matrix] for t in tensors], Sides((), (one,)) if of_rows else Sides((one,)), [1.0, 1.0])
        assert torch.allclose(stack[matrix], alone, rtol=0, atol=1e-6)
    assert torch.allclose(stack[2], (tensors[0][2] + tensors[1][2]) / 2, atol=1e-6)


@pytest.mark.parametrize("shape", [(300, 24), (2, 150, 24), (24,)])
def test_the_bits_do_not_depend_on_how_a_tensor_is_cut(shape: tuple[int, ...]) -> None:
    moments = [kept(second_moment(seed), 4) for seed in range(2)]
    if len(shape) == 1:
        moments = [Moments(torch.rand(24), None, 12.0) for _ in range(2)]
    known, tensors = Sides((side([*moments]),)), models(*shape)
    assert torch.equal(merged(tensors, known, [1.0, 2.0]), merged(tensors, known, [1.0, 2.0], blocks=3))


def test_rows_of_a_product_never_lie_in_two_matrices_of_a_stack() -> None:
    assert rows_of((300, 24)) == 128
    assert rows_of((4, 300, 24)) == 100
    assert rows_of((4, 7, 24)) == 7
    assert rows_of((24,)) == 1
