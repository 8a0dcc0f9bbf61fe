"""A model's own entries are enlarged by the ratio of those that it shares, up to a bound."""

from __future__ import annotations

import pytest
import torch

from tests.helpers import combined


@pytest.mark.parametrize(("alpha", "factors"), [(10.0, (1.2, 1.1)), (0.5, (1.05, 1.05)), (0.0, (1.0, 1.0))])
def test_factors_follow_from_the_counts(alpha: float, factors: tuple[float, float]) -> None:
    # the first has one entry of its own and shares two, the second two of its own and the two
    deltas = [torch.tensor([1.0, 2.0, 4.0, 0.0, 0.0, 0.0]), torch.tensor([0.0, 4.0, 2.0, 1.0, -1.0, 0.0])]
    found = combined("ramplus_tl", deltas, {"epsilon": 1e-5, "r": 0.1, "alpha": alpha})
    torch.testing.assert_close(found, torch.tensor([factors[0], 3.0, 3.0, factors[1], -factors[1], 0.0]))
