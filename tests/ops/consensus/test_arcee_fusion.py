"""The entries of highest importance are the other model's, the rest the base's, against the same with a sort."""

from __future__ import annotations

import pytest
import torch

from tests.helpers import combined


@pytest.mark.parametrize("shape", [(40, 25), (300,), (3, 10, 20)])
def test_the_outliers_of_importance_are_taken(shape: tuple[int, ...]) -> None:
    base = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    other = base + 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(1)) ** 3
    found = combined("arcee_fusion", [base, other], {})
    p, q = torch.softmax(other, -1) + 1e-8, torch.softmax(base, -1) + 1e-8
    importance = (other - base).abs() * (p * (p / q).log()).sum(-1, keepdim=True)
    ordered, last = importance.flatten().sort().values, base.numel() - 1
    first, median, third = (ordered[last * i // 4] for i in (1, 2, 3))
    taken = importance >= median + 1.5 * (third - first)
    assert 0.02 < float(taken.float().mean()) < 0.3
    assert torch.equal(found, torch.where(taken, other, base))


def test_equal_models_are_the_base_bit_for_bit() -> None:
    x = torch.tensor([[-0.0, 1.0, 2.0], [0.0, -1.0, 3.0]])
    assert torch.equal(combined("arcee_fusion", [x, x.clone()], {}).view(torch.int32), x.view(torch.int32))
