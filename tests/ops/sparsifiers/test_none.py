"""The identity keeps a delta as it is."""

from __future__ import annotations

import torch

from mergetool.ops.sparsifiers.none import SPARSIFIER


def test_nothing_changes_and_all_is_kept() -> None:
    x = torch.tensor([0.0, -0.0, float("nan"), 2.0])
    before = x.clone()
    assert SPARSIFIER.apply(x, None, 0) == 4
    assert torch.equal(x.view(torch.int32), before.view(torch.int32))
