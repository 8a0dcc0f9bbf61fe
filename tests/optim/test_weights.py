"""Tensors in memory are read by name: parts in order, entries at indices, in their own type."""

from __future__ import annotations

import torch

from mergetool.optim.weights import InMemory


def test_parts_and_entries_are_the_tensors_own() -> None:
    tensor = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    weights = InMemory({"x": tensor, "y": tensor.detach().T})
    assert (weights.find("x"), weights.find("z")) == ("x", None)
    assert weights.shape("y") == (5, 4)
    assert torch.equal(weights.part("x", 3, 7), tensor.detach().reshape(-1)[3:7])
    index = torch.tensor([0, 19, 4])
    assert torch.equal(weights.at("y", index), tensor.detach().T.reshape(-1)[index])
    assert weights.part("x", 0, 1).dtype == torch.float64
    assert not weights.part("x", 0, 1).requires_grad
