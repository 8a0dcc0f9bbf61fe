"""Whatever is learned, the mean share of SFT stays what was asked for, and every share is a share."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergetool.ama.ratios import penalty_weights, ratios

free = st.lists(st.floats(-30, 30), min_size=1, max_size=12)


@given(free, st.floats(0, 1), st.floats(1e-3, 2))
def test_the_mean_is_what_was_asked_for_and_every_ratio_is_in_zero_one(w, mean, epsilon) -> None:
    found = ratios(torch.tensor(w, dtype=torch.float64), mean, epsilon)
    assert float(found.mean()) == pytest.approx(mean, abs=1e-12)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1 + 1e-12


@given(st.integers(1, 12), st.floats(0, 1))
def test_equal_numbers_give_the_mean_everywhere(count, mean) -> None:
    assert ratios(torch.full((count,), 0.7, dtype=torch.float64), mean).tolist() == pytest.approx([mean] * count, abs=1e-12)


@given(free, st.floats(0, 0.15))
def test_below_the_bound_it_is_the_papers_formula(w, mean) -> None:
    # with epsilon 0.2 no ratio is more than 6 means, so none reaches 1 and nothing is capped
    scores = [1 / (1 + torch.exp(-torch.tensor(x, dtype=torch.float64))) + 0.2 for x in w]
    expected = [float(mean * len(w) * s / sum(scores)) for s in scores]
    assert ratios(torch.tensor(w, dtype=torch.float64), mean).tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15)


@given(free, st.floats(0.05, 1))
def test_the_order_of_the_numbers_is_the_order_of_the_ratios(w, mean) -> None:
    found = ratios(torch.tensor(w, dtype=torch.float64), mean).tolist()
    by_w = [share for _, share in sorted(zip(w, found, strict=True))]
    assert all(a <= b + 1e-12 for a, b in pairwise(by_w))


@pytest.mark.parametrize("mean", [0.1, 0.5, 0.9])
def test_the_ratios_can_be_differentiated_also_where_one_is_capped(mean) -> None:
    w = torch.tensor([3.0, -2.0, 0.5, -1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: ratios(x, mean), (w,))


def test_penalty_weights_are_the_released_ones_at_its_depth() -> None:
    assert penalty_weights(26, "middle") == [25 / (abs(layer - 13) + 1) for layer in range(26)]
    assert penalty_weights(3, "uniform") == [1.0, 1.0, 1.0]
