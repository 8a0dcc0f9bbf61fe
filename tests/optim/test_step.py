"""The two ways to merge an update with τ_s, entry by entry as the paper has them."""

from __future__ import annotations

import pytest
import torch

from mergetool.optim.step import adamw_, adamw_moments_, ondare_step, onties_step

DELTA, TAU = [2.0, -2.0, 1.0, 0.0, -3.0, 1.0], [1.0, 1.0, -4.0, 2.0, 0.0, -1.0]


def test_ondare_is_the_weighted_sum() -> None:
    assert ondare_step(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 8.0]), 0.25).tolist() == [1.5, 2.0]
    assert ondare_step(torch.tensor([2.0]), None, 0.25).tolist() == [1.5]


def test_onties_elects_on_the_weighted_or_on_the_bare_deltas() -> None:
    weighted, bare = (onties_step(torch.tensor(DELTA), torch.tensor(TAU), 0.5, elect) for elect in ("weighted", "unweighted"))
    assert weighted.tolist() == [1.5, -1.0, -2.0, 1.0, -1.5, 0.0]  # of −1 and 0.5 the larger, of 0.5 and −0.5 both
    assert bare.tolist() == [1.5, -1.0, -2.0, 1.0, -1.5, 0.5]  # 1 and −1 sum to 0, which elects +


@pytest.mark.parametrize(("alpha", "elect", "expected"), [(0.9, "weighted", 0.9), (0.9, "unweighted", -0.2)])
def test_the_weights_decide_in_the_paper_and_not_in_the_authors_code(alpha: float, elect: str, expected: float) -> None:
    assert onties_step(torch.tensor([-2.0]), torch.tensor([1.0]), alpha, elect).item() == pytest.approx(expected)


def test_the_moments_do_not_depend_on_how_a_tensor_is_cut_into_chunks() -> None:
    n = (1 << 19) + 77
    rng = torch.Generator().manual_seed(0)
    grad, m, v = torch.randn(n, generator=rng), torch.randn(n, generator=rng), torch.rand(n, generator=rng)
    whole, t = [torch.zeros(n), grad, m.clone(), v.clone()], torch.tensor(3.0)
    adamw_(*([x] for x in whole), [t], lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    adamw_moments_([grad], [m], [v], [t], betas=(0.9, 0.999), eps=1e-8)
    torch.testing.assert_close(m, whole[2], rtol=1e-6, atol=0)
    torch.testing.assert_close(v, whole[3], rtol=1e-6, atol=0)
