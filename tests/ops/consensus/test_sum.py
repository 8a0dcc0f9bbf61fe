"""Sums of deltas, and their addition to a base that stays what it is where nothing is added."""

from __future__ import annotations

import torch

from mergetool.ops.blocks import reader
from mergetool.ops.consensus import WholeInputs
from mergetool.ops.consensus.sum import CONSENSUS, add_delta, weighted_sum


def test_weights_are_normalized_before_and_rescaling_after() -> None:
    deltas = [torch.tensor([1.0, 2.0]), torch.tensor([4.0, -8.0])]
    inputs = WholeInputs([reader(d) for d in deltas], 2, [1.0, 3.0], [2.0, 0.5], {"normalize": True})
    mixed = CONSENSUS.combine(deltas, CONSENSUS.statistic(inputs), lambda name: torch.empty(2))
    assert mixed.tolist() == [0.25 * 2 * 1 + 0.75 * 0.5 * 4, 0.25 * 2 * 2 + 0.75 * 0.5 * -8]


def test_the_sum_may_be_written_over_its_first_delta() -> None:
    a, b = torch.ones(5), torch.full((5,), 2.0)
    assert weighted_sum([a, b], [3.0, 0.5], a).tolist() == [4.0] * 5


def test_a_delta_of_zero_leaves_the_base_bit_for_bit() -> None:
    base = torch.tensor([-0.0, 0.0, 1e-40, -3.0])
    for zero in (0.0, -0.0):
        got = add_delta(base, torch.full((4,), zero), 0.7, torch.empty(4))
        assert torch.equal(got.view(torch.int32), base.view(torch.int32))
