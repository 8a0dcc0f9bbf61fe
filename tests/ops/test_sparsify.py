"""Trim keeps exactly k entries, ties by the lower index; drop and rescale do what DARE says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergetool.ops import noise, ranked, sparsify
from mergetool.ops.blocks import reader


def plain_top_k(x: np.ndarray, k: int) -> np.ndarray:
    """An independent reference: a stable sort by falling magnitude breaks ties by the lower index."""
    keep = np.zeros(x.size, bool)
    keep[np.argsort(-np.abs(x), kind="stable")[:k]] = True
    return np.where(keep, x, 0)


def dropped(x: torch.Tensor, key: int, density: float, start: int = 0) -> torch.Tensor:
    y = x.clone()
    assert sparsify.drop(y, key, density, start) == int(y.count_nonzero()) + int((x == 0).sum() if density == 1 else 0)
    return y


def trimmed(x: torch.Tensor, k: int) -> torch.Tensor:
    return sparsify.trim(x.clone(), sparsify.magnitude_threshold(reader(x), x.numel(), k))


@given(
    values=st.lists(st.floats(-4, 4, width=16), min_size=1, max_size=200),
    share=st.floats(0, 1),
)
def test_trim_equals_a_stable_sort_on_any_small_tensor(values: list[float], share: float) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    k = int(share * x.numel())
    assert np.array_equal(trimmed(x, k).numpy(), plain_top_k(x.numpy(), k))


@pytest.mark.parametrize("density", [5e-4, 0.01, 0.3, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("kind", ["normal", "bf16 difference", "mostly zero", "rows of unlike scale", "constant"])
def test_trim_is_exact_on_large_tensors(density: float, kind: str) -> None:
    rng = torch.Generator().manual_seed(0)
    n = 400_003
    x = torch.randn(n, generator=rng) * 0.02
    if kind == "bf16 difference":
        x = (x + torch.randn(n, generator=rng) * 2e-4).bfloat16().float() - x.bfloat16().float()
    elif kind == "mostly zero":
        x[torch.rand(n, generator=rng) < 0.9] = 0
    elif kind == "rows of unlike scale":
        x *= torch.logspace(-3, 3, n)
    elif kind == "constant":
        x = torch.full((n,), -0.25)
    k = int(density * n)
    got = trimmed(x, k)
    assert np.array_equal(got.numpy(), plain_top_k(x.numpy(), k))


def test_a_trim_applied_in_parts_equals_a_trim_of_the_whole() -> None:
    x = (torch.randn(300_000, generator=torch.Generator().manual_seed(1)) * 8).round()
    threshold = sparsify.magnitude_threshold(reader(x), x.numel(), 100_000)
    parts = [sparsify.trim(x[a : a + 7_001].clone(), threshold, a) for a in range(0, x.numel(), 7_001)]
    assert torch.equal(torch.cat(parts), trimmed(x, 100_000))


def test_kept_count_is_the_floor_but_never_zero_for_a_positive_density() -> None:
    assert sparsify.kept_count(0.5, 7) == 3
    assert sparsify.kept_count(1e-9, 7) == 1
    assert sparsify.kept_count(0.0, 7) == 0
    assert sparsify.kept_count(0.5, 0) == 0
    with pytest.raises(ValueError, match="density"):
        sparsify.kept_count(1.1, 5)


@pytest.mark.parametrize("density", [0.01, 0.5])
def test_a_drop_applied_in_parts_equals_a_drop_of_the_whole(density: float) -> None:
    x = torch.randn(200_000)
    key = noise.stream_key(0, 0, "m", "w")
    whole = dropped(x, key, density)
    parts = [dropped(x[a : a + 9_999], key, density, a) for a in range(0, x.numel(), 9_999)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(whole[whole != 0], x[whole != 0])


@pytest.mark.parametrize("density", [0.01, 0.3])
def test_unbiased_rescaling_keeps_the_expectation(density: float) -> None:
    x = torch.ones(1 << 20)
    key = noise.stream_key(0, 0, "m", "w")
    mean = dropped(x, key, density).mul_(sparsify.rescale_factor("unbiased", density)).mean().item()
    sigma = ((1 - density) / density / x.numel()) ** 0.5
    assert abs(mean - 1) < 5 * sigma


def test_l1_rescaling_restores_the_l1_norm() -> None:
    x = torch.randn(100_000)
    before = sparsify.l1_norm(reader(x), x.numel())
    y = dropped(x, 5, 0.3)
    after = sparsify.l1_norm(reader(y), y.numel())
    y *= sparsify.rescale_factor("l1", 0.3, before, after)
    assert y.abs().sum().item() == pytest.approx(before, rel=1e-5)


def test_density_one_keeps_everything() -> None:
    x = torch.randn(1000)
    assert torch.equal(trimmed(x, 1000), x)
    assert torch.equal(dropped(x, 1, 1.0), x)


@pytest.mark.parametrize(("density", "gamma"), [(0.5, 0.01), (0.9, 0.01), (0.9, 0.2), (0.2, 0.0), (0.01, 0.5)])
def test_breadcrumbs_keeps_the_band_below_the_outliers(density: float, gamma: float) -> None:
    x = torch.randn(10_007, generator=torch.Generator().manual_seed(2))
    target, n_top = int(density * x.numel()), int(gamma * x.numel())
    bottom = max(0, x.numel() - target - n_top)
    order = torch.argsort(x.abs())
    expected = torch.zeros_like(x)
    expected[order[bottom : bottom + target]] = x[order[bottom : bottom + target]]
    band = sparsify.outlier_thresholds(reader(x), x.numel(), density, gamma)
    assert torch.equal(sparsify.trim_band(x.clone(), band), expected)
    parts = [sparsify.trim_band(x[a : a + 999].clone(), band, a) for a in range(0, x.numel(), 999)]
    assert torch.equal(torch.cat(parts), expected)


def test_a_selection_across_many_ties_and_atoms_is_exact() -> None:
    rng = torch.Generator().manual_seed(3)
    x = torch.cat([torch.zeros(700_000), torch.full((200_000,), 0.5), torch.randn(300_000, generator=rng)])
    x = x[torch.randperm(x.numel(), generator=rng)]
    for density in (0.001, 0.1, 0.2, 0.3, 0.36, 0.41, 0.5, 0.999):
        k = int(density * x.numel())
        assert np.array_equal(trimmed(x, k).numpy(), plain_top_k(x.numpy(), k)), density


@pytest.mark.parametrize(("density", "epsilon"), [(0.5, 0.15), (0.7, 0.05)])
def test_della_keeps_larger_entries_more_often_and_is_unbiased(density: float, epsilon: float) -> None:
    rows, width = 4000, 50
    magnitudes = torch.arange(1, width + 1).float()[torch.randperm(width, generator=torch.Generator().manual_seed(0))]
    x = magnitudes.repeat(rows, 1).flatten()
    y = x.clone()
    kept = ranked.drop_ranked(y, 77, density, epsilon, width, unbiased=True)
    on = (y != 0).view(rows, width)
    assert kept == int(on.sum())
    expected = density - epsilon + (magnitudes - 1) / (width - 1) * 2 * epsilon
    spread = 5 * (expected * (1 - expected) / rows).sqrt()
    assert ((on.float().mean(0) - expected).abs() < spread).all()
    mean = y.view(rows, width).mean(0) / magnitudes
    assert ((mean - 1).abs() < spread / expected).all()


def test_della_applied_in_rows_equals_della_of_the_whole_and_survivors_keep_their_value() -> None:
    x = torch.randn(60 * 128)
    whole = x.clone()
    ranked.drop_ranked(whole, 5, 0.5, 0.2, 128, unbiased=False)
    parts = [x[a : a + 256].clone() for a in range(0, x.numel(), 256)]
    for i, part in enumerate(parts):
        ranked.drop_ranked(part, 5, 0.5, 0.2, 128, 256 * i, unbiased=False)
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(whole[whole != 0], x[whole != 0])
