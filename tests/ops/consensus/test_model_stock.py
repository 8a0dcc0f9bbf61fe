"""The mean is taken as far as the deltas agree: all of it where they are one, none where they are orthogonal."""

from __future__ import annotations

import math

import pytest
import torch

from mergetool.ops.blocks import reader
from mergetool.ops.consensus import WholeInputs
from mergetool.ops.consensus.model_stock import CONSENSUS
from tests.helpers import combined

WHOLE, ROWS = {"filter_wise": False}, {"filter_wise": True}


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_result_is_nearest_to_the_centre_of_such_models(count: int) -> None:
    """Models c + nᵢ with orthogonal nᵢ of one length: the point between base and mean that is nearest to c, the mean of
    infinitely many of them.
    """
    centre = torch.zeros(1 + count)
    centre[0] = 2.0
    deltas = [centre + 1.5 * torch.eye(1 + count)[1 + i] for i in range(count)]
    found = combined("model_stock", deltas, WHOLE)
    mean = torch.stack(deltas).mean(0)
    t = float(mean @ centre / (mean @ mean))  # of t·mean, where |t·mean − centre| is least
    torch.testing.assert_close(found, t * mean)


def test_orthogonal_deltas_leave_the_base_and_equal_ones_are_taken() -> None:
    a, b = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    assert not combined("model_stock", [a, b], WHOLE).any()
    torch.testing.assert_close(combined("model_stock", [a, a], WHOLE), a)
    assert not combined("model_stock", [a, -a], WHOLE).any()  # where there is no finite ratio


def test_rows_are_vectors_of_their_own() -> None:
    x = [torch.randn(4, 9, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    found = combined("model_stock", x, ROWS)
    for row in range(4):
        torch.testing.assert_close(found[row], combined("model_stock", [t[row] for t in x], WHOLE))


def test_the_share_is_the_ratio() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([math.cos(1.0), math.sin(1.0)])
    inputs = WholeInputs([reader(a), reader(b)], 2, [1.0] * 2, [1.0] * 2, WHOLE, 1, (2,))
    assert CONSENSUS.share(CONSENSUS.statistic(inputs)) == pytest.approx(2 * math.cos(1.0) / (1 + math.cos(1.0)), rel=1e-6)
