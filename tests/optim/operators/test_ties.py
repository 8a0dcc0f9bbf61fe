"""OnTIES' kernel keeps what a trim keeps, a NaN among it; sparse deltas are laid onto the union of their entries."""

from __future__ import annotations

import torch

from mergetool.ops.blocks import reader
from mergetool.ops.threshold import magnitude_threshold, trim
from mergetool.optim.job import Picked
from mergetool.optim.kernels import Draw
from mergetool.optim.operators.ties import _aligned, keep_largest


def test_the_kernels_decisions_are_the_trims() -> None:
    x = (torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * 4).round()  # many ties
    bound = magnitude_threshold(reader(x), x.numel(), 3000)
    zero = torch.tensor(0)
    draw = Draw(zero, zero, zero, torch.tensor(bound.value), torch.tensor(bound.last_tie))
    assert torch.equal(keep_largest(x, torch.arange(x.numel()), draw), trim(x.clone(), bound))
    seen = keep_largest(torch.tensor([float("nan"), 0.0]), torch.arange(2), draw)
    assert seen[0].isnan()


def test_two_sparse_deltas_are_laid_onto_the_union_of_their_entries() -> None:
    a = Picked(torch.tensor([2, 5, 9]), torch.tensor([1.0, 2.0, 3.0]))
    b = Picked(torch.tensor([0, 5, 11]), torch.tensor([10.0, 20.0, 30.0]))
    index, first, second = _aligned(a, b)
    got = {int(i): (float(x), float(y)) for i, x, y in zip(index, first, second, strict=True)}
    assert got == {2: (1, 0), 5: (2, 20), 9: (3, 0), 0: (0, 10), 11: (0, 30)}
