"""A trim keeps exactly k entries, ties by the lower index, whatever the tensor looks like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergetool.ops import threshold
from mergetool.ops.blocks import reader


def plain_top_k(x: np.ndarray, k: int) -> np.ndarray:
    """An independent reference: a stable sort by falling magnitude breaks ties by the lower index."""
    keep = np.zeros(x.size, bool)
    keep[np.argsort(-np.abs(x), kind="stable")[:k]] = True
    return np.where(keep, x, 0)


def trimmed(x: torch.Tensor, k: int) -> torch.Tensor:
    return threshold.trim(x.clone(), threshold.magnitude_threshold(reader(x), x.numel(), k))


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
    bound = threshold.magnitude_threshold(reader(x), x.numel(), 100_000)
    parts = [threshold.trim(x[a : a + 7_001].clone(), bound, a) for a in range(0, x.numel(), 7_001)]
    assert torch.equal(torch.cat(parts), trimmed(x, 100_000))


def test_kept_count_is_the_floor_but_never_zero_for_a_positive_density() -> None:
    assert threshold.kept_count(0.5, 7) == 3
    assert threshold.kept_count(1e-9, 7) == 1
    assert threshold.kept_count(0.0, 7) == 0
    assert threshold.kept_count(0.5, 0) == 0
    with pytest.raises(ValueError, match="density"):
        threshold.kept_count(1.1, 5)


def test_a_selection_across_many_ties_and_atoms_is_exact() -> None:
    rng = torch.Generator().manual_seed(3)
    x = torch.cat([torch.zeros(700_000), torch.full((200_000,), 0.5), torch.randn(300_000, generator=rng)])
    x = x[torch.randperm(x.numel(), generator=rng)]
    for density in (0.001, 0.1, 0.2, 0.3, 0.36, 0.41, 0.5, 0.999):
        k = int(density * x.numel())
        assert np.array_equal(trimmed(x, k).numpy(), plain_top_k(x.numpy(), k)), density


def test_density_one_keeps_everything() -> None:
    x = torch.randn(1000)
    assert torch.equal(trimmed(x, 1000), x)
