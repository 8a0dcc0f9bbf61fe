"""Stochastic rounding gives one of the two neighbours, and the exact number in expectation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergetool.ops import noise
from mergetool.ops.rounding import add_rounded, add_rounded_at, neighbour, round_at, round_span

KEY = noise.stream_key(7, 3, "rounding", "model.layers.0.mlp.up_proj.weight")
TYPES = [torch.float32, torch.bfloat16, torch.float16]


def every_way(exact: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
    index = torch.arange(exact.numel())
    return [round_at(exact, dtype, KEY, index), round_span(exact, dtype, KEY, 0)]


@pytest.mark.parametrize("dtype", TYPES)
def test_the_neighbour_is_nextafter(dtype: torch.dtype) -> None:
    values = [0.0, -0.0, 1.0, -1.0, 0.02, -0.02, 6e-8, -6e-8, 65504.0, 1.5, -2.0]
    near = torch.tensor(values).to(dtype)
    for upward in (True, False):
        got = neighbour(near, torch.full(near.shape, upward))
        for value, moved in zip(near.tolist(), got.tolist(), strict=True):
            assert moved > value if upward else moved < value
            between = torch.tensor((value + moved) / 2, dtype=torch.float64).to(dtype)
            assert between.item() in (value, moved)  # nothing lies between them


@pytest.mark.parametrize("dtype", TYPES)
def test_numbers_that_the_type_holds_stay_and_so_do_inf_and_nan(dtype: torch.dtype) -> None:
    held = torch.randn(5000, generator=torch.Generator().manual_seed(0)).to(dtype)
    held[:4] = torch.tensor([float("inf"), float("-inf"), 0.0, float("nan")], dtype=dtype)
    for got in every_way(held.double(), dtype):
        assert torch.equal(got.nan_to_num(nan=9.0), held.nan_to_num(nan=9.0))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("fraction", [0.5, 0.25, 1e-3, 2e-6])
def test_the_expectation_is_the_exact_number(dtype: torch.dtype, fraction: float) -> None:
    n = 1 << 21
    base = torch.full((), 0.0201).to(dtype)
    gap = neighbour(base, torch.tensor(True)).double() - base.double()
    exact = (base.double() + fraction * gap).expand(n)
    for got in every_way(exact, dtype):
        moved = got != base
        assert (got[moved].double() == base.double() + gap).all()
        assert abs(int(moved.sum()) - fraction * n) < 5 * (n * fraction) ** 0.5 + 1


@given(start=st.integers(0, 200_000), count=st.integers(1, 3000))
def test_the_decision_depends_on_the_index_alone(start: int, count: int) -> None:
    exact = torch.linspace(-0.03, 0.05, 203_000, dtype=torch.float64)
    part = slice(start, start + count)
    whole = round_span(exact, torch.bfloat16, KEY, 0)
    assert torch.equal(round_span(exact[part].clone(), torch.bfloat16, KEY, start), whole[part])
    index = torch.arange(exact.numel())
    whole = round_at(exact, torch.bfloat16, KEY, index)
    assert torch.equal(round_at(exact[part], torch.bfloat16, KEY, index[part]), whole[part])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("fraction", [0.5, 0.25, -0.25, 1e-3, 2e-6, -2e-6, 3.3])
@pytest.mark.parametrize("base", [0.0201, -0.0201, 1.0, -1.0])
def test_a_rounded_sum_is_one_of_its_neighbours_and_exact_in_expectation(
    dtype: torch.dtype, fraction: float, base: float
) -> None:
    n = 1 << 20
    x = torch.full((n,), base).to(dtype)
    gap = float((neighbour(x[:1], torch.tensor([fraction > 0])).double() - x[:1].double()).abs())
    d = torch.full((n,), fraction * gap)
    got = add_rounded(x, d, KEY, 0)
    below = (x[0].double() + d[0].double()).item()
    for value in got.unique().double().tolist():
        spacing = 2 * abs(gap)  # two steps where a move goes below a power of two
        assert abs(value - below) <= spacing * (1 + 1e-9)
    share = abs(fraction) % 1
    error = 8 * gap * (min(share, 1 - share) / n) ** 0.5 + 2 * gap / n
    assert abs((got.double() - x.double()).mean().item() - d[0].item()) < error


@pytest.mark.parametrize("dtype", TYPES)
def test_adding_nothing_moves_nothing(dtype: torch.dtype) -> None:
    x = torch.cat([torch.randn(70_000, generator=torch.Generator().manual_seed(0)), torch.ones(9), torch.zeros(9)])
    x = x.to(dtype)
    assert torch.equal(add_rounded(x, torch.zeros(x.numel()), KEY, 0), x)


@given(start=st.integers(0, 200_000), count=st.integers(1, 3000))
def test_a_slice_of_a_rounded_sum_is_the_rounded_sum_of_the_slice(start: int, count: int) -> None:
    x, d = torch.linspace(-0.03, 0.05, 203_000), torch.linspace(1e-10, 1e-7, 203_000)
    part = slice(start, start + count)
    for dtype in (torch.float32, torch.bfloat16):
        whole = add_rounded(x.to(dtype), d, KEY, 0)
        assert torch.equal(add_rounded(x.to(dtype)[part], d[part], KEY, start), whole[part])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-12, 1e-9, 1e-5, 1e-2, 1.0])
def test_the_elementwise_sum_is_the_rounded_sum_bit_for_bit(dtype: torch.dtype, scale: float) -> None:
    rng = torch.Generator().manual_seed(3)
    x = (torch.randn(1 << 20, generator=rng) * 0.02).to(dtype)
    x[:5] = torch.tensor([0.0, -0.0, 1.0, -1.0, 2.0**-126])
    d = torch.randn(1 << 20, generator=rng) * scale
    assert torch.equal(add_rounded_at(x, d, KEY, torch.arange(9, 9 + (1 << 20))), add_rounded(x, d, KEY, 9))


def test_entries_of_several_tensors_are_rounded_as_each_alone() -> None:
    keys = [noise.stream_key(0, 0, "rounding", name) for name in "ab"]
    exact = torch.linspace(-0.03, 0.05, 2000, dtype=torch.float64)
    index, halves = torch.arange(1000).repeat(2), (slice(1000), slice(1000, None))
    for dtype in TYPES:
        together = round_at(exact, dtype, np.repeat(np.array(keys, np.uint64), 1000), index)
        alone = [round_at(exact[part], dtype, key, index[:1000]) for key, part in zip(keys, halves, strict=True)]
        assert torch.equal(together, torch.cat(alone))
