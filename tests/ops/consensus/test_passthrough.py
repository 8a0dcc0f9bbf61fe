"""A model goes through as it is, or scaled."""

from __future__ import annotations

import torch

from tests.helpers import combined


def test_it_is_the_model_or_a_multiple_of_it() -> None:
    x = torch.tensor([-0.0, 1.5, -2.0])
    assert torch.equal(combined("passthrough", [x], {}, own=[{"scale": 1.0}]).view(torch.int32), x.view(torch.int32))
    assert torch.equal(combined("passthrough", [x], {}, own=[{"scale": 0.5}]), x / 2)
