"""OnLinear moves toward θ_s by the share that it is given, and stops there at 1."""

from __future__ import annotations

import pytest
import torch

from mergetool.optim.deltas import stored
from mergetool.optim.job import Merge
from mergetool.optim.operators.linear import OPERATOR
from mergetool.optim.parts import Binding
from mergetool.optim.sharding import Shard


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_share_of_the_way(alpha: float) -> None:
    theta, point = torch.zeros(1000), torch.linspace(-1, 1, 1000)
    merge = Merge(OPERATOR, 1.0, alpha, "none", "resample", "weighted", None, 0, 0, True)
    OPERATOR.mix(theta, merge, Binding("w", Shard((1000,), (1000,), (0,)), stored(point, None)))
    torch.testing.assert_close(theta, alpha * point, rtol=1e-6, atol=0)
    if alpha == 1.0:
        assert torch.equal(theta, point)
