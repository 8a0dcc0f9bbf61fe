"""Keep everything."""

from __future__ import annotations

import torch

from mergetool.ops.sparsifiers import Sparsifier


class KeepAll(Sparsifier):
    """F is the identity."""

    def apply(self, x: torch.Tensor, statistic: None, start: int) -> int:
        """As `Sparsifier.apply`."""
        return x.numel()


SPARSIFIER = KeepAll()
