"""What one model changed stays whole; what several changed is their mean."""

from __future__ import annotations

import torch

from tests.helpers import combined


def test_entry_by_entry() -> None:
    deltas = [
        torch.tensor([0.5, 0.0, 1.0, 1e-6, -3.0]),
        torch.tensor([0.0, 0.25, 3.0, 0.0, -1.0]),
        torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0]),
    ]
    torch.testing.assert_close(combined("ram", deltas, {"epsilon": 1e-5}), torch.tensor([0.5, 0.25, 2.0, 0.0, -1.0]))


def test_at_epsilon_zero_every_entry_that_is_not_zero_counts() -> None:
    deltas = [torch.tensor([1e-9, 0.0]), torch.tensor([0.0, 2e-9])]
    assert combined("ram", deltas, {"epsilon": 0.0}).tolist() == [deltas[0][0], deltas[1][1]]
