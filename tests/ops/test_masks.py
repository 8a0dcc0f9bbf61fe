"""A random mask has the density that was asked for, and is the same for any slice, device and sampler call."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergetool.ops import masks, noise

KEY = noise.stream_key(7, 3, "update", "model.layers.0.mlp.up_proj.weight")


@given(
    density=st.floats(0.0, 1.0),
    start=st.integers(0, 300_000),
    count=st.integers(1, 5_000),
)
def test_a_slice_of_the_dense_mask_is_the_mask_of_the_slice(density: float, start: int, count: int) -> None:
    whole = masks.random_mask(KEY, density, 0, start + count)
    part = masks.random_mask(KEY, density, start, count)
    assert torch.equal(whole[start:], part)


@given(
    density=st.floats(0.0, masks.SPARSE_BELOW, exclude_max=True),
    start=st.integers(0, 300_000),
    count=st.integers(1, 200_000),
)
def test_a_slice_of_the_sparse_sample_is_the_sample_of_the_slice(density: float, start: int, count: int) -> None:
    whole = masks.kept_indices(KEY, density, 0, 600_000)
    part = masks.kept_indices(KEY, density, start, count)
    expected = whole[(whole >= start) & (whole < start + count)] - start
    assert torch.equal(expected, part)


@pytest.mark.parametrize("density", [0.5, 0.3, 0.9, 0.0312501, 1e-5])
def test_the_dense_mask_keeps_the_asked_fraction(density: float) -> None:
    n = 1 << 22
    kept = int(masks.random_mask(KEY, density, 0, n).sum())
    assert abs(kept - density * n) < 5 * (n * density * (1 - density)) ** 0.5 + 1


@pytest.mark.parametrize("density", [0.03, 0.01, 5e-4, 1e-5])
def test_the_sparse_sampler_keeps_the_asked_fraction_with_binomial_spread(density: float) -> None:
    cells, size = 400, masks.CELL
    index = masks.kept_indices(KEY, density, 0, cells * size).numpy()
    assert (np.diff(index) > 0).all()
    n = cells * size
    assert abs(index.size - density * n) < 5 * (n * density * (1 - density)) ** 0.5
    per_cell = np.bincount(index // size, minlength=cells)
    variance = size * density * (1 - density)
    # the variance of a sample variance of 400 counts is about 2/400 of its square
    assert 0.6 < per_cell.var() / variance < 1.4


def test_sparse_positions_are_uniform_within_a_cell() -> None:
    index = masks.kept_indices(KEY, 0.01, 0, 200 * masks.CELL).numpy() % masks.CELL
    counts = np.bincount(index // 4096, minlength=16)
    expected = index.size / 16
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 45  # the 0.9999 quantile of chi² with 15 degrees of freedom is 44.3


def test_neighbouring_entries_are_independent() -> None:
    mask = masks.random_mask(KEY, 0.5, 0, 1 << 20).numpy().astype(np.float64) - 0.5
    for lag in (1, 2, 3, 4, 5, 1024):
        correlation = 4 * (mask[:-lag] * mask[lag:]).mean()
        assert abs(correlation) < 5 / len(mask) ** 0.5


def test_a_density_outside_zero_and_one_is_refused() -> None:
    with pytest.raises(ValueError, match="density"):
        masks.random_mask(KEY, 1.5, 0, 8)
    with pytest.raises(ValueError, match="density"):
        masks.kept_indices(KEY, -0.1, 0, 8)


def test_the_ties_of_the_lane_threshold_follow_the_fraction() -> None:
    # density 0.5/65536: the whole part is 0, so every kept entry was decided by the second stream
    n = 1 << 24
    kept = int(masks.random_mask(KEY, 0.5 / 65536, 0, n).sum())
    assert abs(kept - n * 0.5 / 65536) < 5 * (n * 0.5 / 65536) ** 0.5


@given(
    density=st.one_of(st.floats(0.0, 1.0), st.just(0.5 / 65536), st.just(19660 / 65536)),
    start=st.integers(0, 300_000),
    count=st.integers(1, 5_000),
)
def test_the_device_path_keeps_the_same_entries(density: float, start: int, count: int) -> None:
    expected = masks.random_mask(KEY, density, start, count)
    assert torch.equal(masks.random_mask_on("cpu", KEY, density, start, count), expected)


def test_the_device_path_decides_ties_with_the_same_further_bits() -> None:
    n = 1 << 20  # about eight of these entries tie at density 0.5/65536
    expected = masks.random_mask(KEY, 0.5 / 65536, 0, n)
    assert expected.any()
    assert torch.equal(masks.random_mask_on("cpu", KEY, 0.5 / 65536, 0, n), expected)


@given(
    density=st.floats(0.0, masks.SPARSE_BELOW, exclude_max=True),
    parts=st.lists(st.tuples(st.integers(0, (1 << 64) - 1), st.integers(0, 200_000), st.integers(0, 150_000)), max_size=6),
)
def test_many_streams_at_once_keep_what_each_keeps_alone(density: float, parts: list[tuple[int, int, int]]) -> None:
    together = masks.kept_indices_of(parts, density)
    assert len(together) == len(parts)
    for (key, start, count), index in zip(parts, together, strict=True):
        assert np.array_equal(index, masks.kept_indices(key, density, start, count).numpy())


@pytest.mark.parametrize("density", [0.5, 0.3, 0.5 / 65536])
def test_the_elementwise_sampler_keeps_the_same_entries(density: float) -> None:
    index = torch.arange(3, 3 + (1 << 20))
    whole, tie = (torch.tensor(x) for x in masks.lane_threshold(density))
    got = masks.kept_at(torch.tensor(noise.signed(KEY)), whole, tie, index, tied=tie.item() > 0)
    assert torch.equal(got, masks.random_mask(KEY, density, 3, 1 << 20))
