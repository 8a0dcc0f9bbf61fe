"""TIES' trim over a whole task vector is a trim of its tensors laid end to end."""

from __future__ import annotations

import torch

from mergetool.ops.blocks import reader
from mergetool.ops.sparsifiers import WholeDelta
from mergetool.ops.sparsifiers.magnitude import SPARSIFIER


def test_a_statistic_of_the_joined_tensors_serves_each_of_them() -> None:
    rng = torch.Generator().manual_seed(0)
    first, second = torch.randn(3000, generator=rng), 3 * torch.randn(500, generator=rng)
    joined = torch.cat([first, second])
    statistic = SPARSIFIER.statistic(WholeDelta(reader(joined), (3500,), 0, {"density": 0.2}))
    SPARSIFIER.apply(first, statistic, 0)
    SPARSIFIER.apply(second, statistic, 3000)
    kept = torch.zeros(3500, dtype=torch.bool)
    kept[joined.abs().argsort(descending=True)[:700]] = True
    assert torch.equal(torch.cat([first, second]), joined * kept)
    assert second.count_nonzero() / 500 > first.count_nonzero() / 3000
