"""TIES' sparsifier: the largest entries are kept, ties broken by the lower flat index.

Source: Yadav et al. 2023, arXiv 2306.01708, §3.
"""

from __future__ import annotations

import torch

from mergetool.ops.sparsifiers import Sparsifier, WholeDelta
from mergetool.ops.threshold import Threshold, kept_count, magnitude_threshold, trim


class Largest(Sparsifier):
    """Keeps the ⌊density·n⌋ entries of largest magnitude: of a tensor, or of a whole task vector."""

    def statistic(self, delta: WholeDelta) -> Threshold:
        """One sweep over the delta, mostly."""
        return magnitude_threshold(delta.read, delta.numel, kept_count(delta.density, delta.numel))

    def kept(self, delta: WholeDelta) -> int:
        """As `Sparsifier.kept`."""
        return kept_count(delta.density, delta.numel)

    def apply(self, x: torch.Tensor, statistic: Threshold, start: int) -> None:
        """As `Sparsifier.apply`."""
        trim(x, statistic, start)


SPARSIFIER = Largest()
