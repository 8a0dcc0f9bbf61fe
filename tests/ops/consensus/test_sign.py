"""Sign election against the paper's words, entry by entry."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mergetool.ops.consensus.sign import elect_sign, pairwise_sign_consensus, sign_consensus

ENTRIES = st.lists(st.lists(st.integers(-3, 3), min_size=6, max_size=6), min_size=1, max_size=4)


def plain(columns: list[list[float]], weights: list[float], normalize: bool) -> list[float]:
    found = []
    for entry in zip(*columns, strict=True):
        positive = sum(entry) >= 0
        part = [(x, w) for x, w in zip(entry, weights, strict=True) if x and (x > 0) == positive]
        total, divisor = sum(x for x, _ in part), sum(w for _, w in part)
        found.append(total / divisor if normalize and divisor else total)
    return found


@given(columns=ENTRIES, normalize=st.booleans())
def test_entries_that_disagree_are_dropped_and_the_rest_summed(columns: list[list[int]], normalize: bool) -> None:
    weights = [1.0 + i for i in range(len(columns))]
    deltas = [torch.tensor(column, dtype=torch.float32) for column in columns]
    got = sign_consensus([d.clone() for d in deltas], weights, normalize=normalize)
    torch.testing.assert_close(got, torch.tensor(plain(columns, weights, normalize), dtype=torch.float32))
    assert torch.equal(elect_sign(deltas) > 0, sum(deltas) >= 0)


@given(a=st.lists(st.integers(-3, 3), min_size=8, max_size=8), b=st.lists(st.integers(-3, 3), min_size=8, max_size=8))
def test_of_two_the_larger_stays_where_signs_differ_and_both_where_equal(a: list[int], b: list[int]) -> None:
    got = pairwise_sign_consensus(torch.tensor(a).float(), torch.tensor(b).float())
    expected = [x + y if x * y >= 0 or abs(x) == abs(y) else max(x, y, key=abs) for x, y in zip(a, b, strict=True)]
    assert got.tolist() == expected
