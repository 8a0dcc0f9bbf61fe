"""The arc between two models turns by the share asked for, and keeps the norm."""

from __future__ import annotations

import math

import pytest
import torch

from mergetool.ops.blocks import reader
from mergetool.ops.consensus import WholeInputs
from mergetool.ops.consensus.slerp import CONSENSUS, slerp_coefficients


@pytest.mark.parametrize("t", [0.1, 0.5, 0.8])
def test_of_two_unit_vectors_it_is_a_rotation(t: float) -> None:
    a, b = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([math.cos(1.0), math.sin(1.0), 0.0])
    inputs = WholeInputs([reader(a), reader(b)], 3, [1 - t, t], [1.0, 1.0], {"t": t})
    mixed = CONSENSUS.combine([a, b], CONSENSUS.statistic(inputs), lambda name: torch.empty(3))
    expected = torch.tensor([math.cos(t), math.sin(t), 0.0])
    torch.testing.assert_close(mixed, expected, rtol=1e-6, atol=1e-6)


def test_nearly_collinear_or_zero_tensors_fall_back_to_the_line() -> None:
    assert slerp_coefficients(1.0, 1.0, 1.0, 0.25) == (0.75, 0.25)
    assert slerp_coefficients(0.0, 0.0, 1.0, 0.25) == (0.75, 0.25)
    assert slerp_coefficients(0.0, 1.0, 1.0, 0.5) == pytest.approx((math.sqrt(0.5), math.sqrt(0.5)))
