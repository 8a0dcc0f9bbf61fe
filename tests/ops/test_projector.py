"""F_P over rows: against whole matrices, and the same bits however a tensor is cut."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from mergetool.ops.projection import Factor, Rule, factor
from mergetool.ops.projector import ROWS, Projector
from tests.ops.test_projection import dense, moments, second_moment


def delta(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def side(n: int, seed: int = 0, rank: int = 6) -> Factor | None:
    return factor(moments(second_moment(seed, n), rank), Rule("soft", 1.0))


def projected(one: Projector, whole: torch.Tensor, cuts: list[int] | None = None) -> torch.Tensor:
    """All rows, in pieces that start at `cuts`."""
    rows = whole.reshape(-1, one.width)
    edges = [0, *(cuts or []), rows.shape[0]]
    swept = []
    if one.sweeps:
        swept = one.sweep()
        one.sweep_(swept, rows)
    parts = [one.project_(rows[a:b].clone(), a, swept) for a, b in itertools.pairwise(edges)]
    return torch.cat(parts).view(whole.shape)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_columns_are_delta_times_p() -> None:
    x, one = delta(300, 24), side(24)
    ours = projected(Projector((300, 24), (one,)), x)
    assert (ours - (x.double() @ dense(one))).abs().max() < 1e-5


def test_rows_are_p_times_delta() -> None:
    x, one = delta(24, 300), side(24)
    ours = projected(Projector((24, 300), rows=(one,)), x)
    assert (ours - (dense(one) @ x.double())).abs().max() < 1e-5


def test_a_tied_embedding_is_projected_on_both_sides() -> None:
    x, one = delta(50, 24), side(24)
    tokens = Factor(diagonal=torch.linspace(0, 1, 50))
    ours = projected(Projector((50, 24), (one,), (tokens,)), x)
    assert (ours - torch.linspace(0, 1, 50)[:, None] * (x.double() @ dense(one))).abs().max() < 1e-5


def test_every_expert_has_its_own_p() -> None:
    x, sides = delta(3, 20, 24), tuple(side(24, seed) for seed in range(3))
    ours = projected(Projector(x.shape, sides), x)
    for e in range(3):
        assert (ours[e] - x[e].double() @ dense(sides[e])).abs().max() < 1e-5
    transposed = x.transpose(1, 2).contiguous()
    ours = projected(Projector(transposed.shape, rows=sides), transposed)
    for e in range(3):
        assert (ours[e] - dense(sides[e]) @ transposed[e].double()).abs().max() < 1e-5


def test_an_expert_without_inputs_keeps_its_delta() -> None:
    x = delta(2, 20, 24)
    ours = projected(Projector(x.shape, (None, side(24))), x)
    assert torch.equal(ours[0], x[0])
    assert not torch.equal(ours[1], x[1])


def test_a_vector_is_scaled_entry_by_entry_from_any_of_them() -> None:
    x, one = delta(10), Factor(diagonal=torch.arange(10.0))
    assert torch.equal(projected(Projector((10,), rows=(one,)), x, [3, 4]), x * torch.arange(10.0))


def test_hard_twice_is_hard_once() -> None:
    one = Projector((200, 24), (factor(moments(second_moment(), 24), Rule("hard", rank=9)),))
    once = projected(one, delta(200, 24))
    assert (projected(one, once) - once).abs().max() < 1e-6


def test_hard_leaves_the_outputs_of_the_kept_span() -> None:
    known = moments(second_moment(), 24)
    assert known.vectors is not None
    x = known.vectors[:, :9] @ delta(9, 100)
    w, change = delta(200, 24, seed=1), delta(200, 24, seed=2)
    after = w + projected(Projector((200, 24), (factor(known, Rule("hard", rank=9)),)), change)
    assert (after @ x - w @ x).abs().max() < 2e-5 < (change @ x).abs().max() / 1000


@pytest.mark.parametrize("n", [24, 200])
@pytest.mark.parametrize("count", [1, 2])
def test_the_bits_of_a_row_depend_neither_on_cuts_nor_on_threads(n: int, count: int) -> None:
    height = 3 * ROWS + 17
    for one in (
        Projector((height, n), (side(n, rank=n // 2),)),
        Projector((n, height), rows=(side(n, rank=n // 2),)),
        Projector((3, 150, n), (side(n), None, side(n, 1))),
    ):
        x = delta(*one.shape)
        with threads(1):
            whole = projected(one, x)
        cuts = sorted({1, 5, 100, 140, min(ROWS, n - 1)} & set(range(x.reshape(-1, one.width).shape[0])))
        with threads(count):
            assert torch.equal(projected(one, x, cuts), whole)


def test_bytes_count_a_shared_factor_once() -> None:
    one = side(24)
    assert one is not None
    assert one.low_rank is not None
    assert Projector((2, 8, 24), (one, one)).nbytes == one.low_rank.nbytes
