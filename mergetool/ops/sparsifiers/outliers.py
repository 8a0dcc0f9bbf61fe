"""Model Breadcrumbs' sparsifier: without the largest outliers, the next largest entries are kept.

Source: Davari & Belilovsky 2023, arXiv 2312.06795, §3; counts as mergekit's `magnitude_outliers`.
"""

from __future__ import annotations

import torch

from mergetool.ops.blocks import ReadBlock
from mergetool.ops.sparsifiers import Sparsifier, WholeDelta
from mergetool.ops.threshold import KEEP_NONE, Threshold, kept_as_floats, magnitude_threshold, trim

Band = tuple[Threshold, Threshold]


def outlier_thresholds(read: ReadBlock, numel: int, density: float, gamma: float) -> Band:
    """The two thresholds of Model Breadcrumbs: without the largest `gamma`, the next `density` of the entries.

    Where the two fractions exceed 1 the outliers give way, as in mergekit.

    Args:
        read, numel: as `magnitude_threshold`.
        density: fraction kept.
        gamma: fraction of the largest magnitudes dropped.

    Returns:
        (outer, inner): an entry is kept that `outer` keeps and `inner` does not.

    Source: Davari & Belilovsky 2023, arXiv 2312.06795, §3; counts as mergekit's `magnitude_outliers`.
    """
    target = int(density * numel)
    bottom = max(0, numel - target - int(gamma * numel))
    outer = magnitude_threshold(read, numel, numel - bottom)
    return outer, magnitude_threshold(read, numel, numel - bottom - target)


def trim_band(x: torch.Tensor, band: Band, start: int = 0) -> torch.Tensor:
    """Zero, in place, what lies outside a band of `outlier_thresholds`; arguments as `trim`."""
    outer, inner = band
    if inner != KEEP_NONE:
        x.mul_(kept_as_floats(x, inner, start).neg_().add_(1))
    return trim(x, outer, start)


class Breadcrumbs(Sparsifier):
    """Drops the largest `gamma` of the entries and keeps the next `density` of them."""

    def statistic(self, delta: WholeDelta) -> Band:
        """Two selections."""
        return outlier_thresholds(delta.read, delta.numel, delta.density, delta.options["gamma"])

    def kept(self, delta: WholeDelta) -> int:
        """As `Sparsifier.kept`."""
        return int(delta.density * delta.numel)

    def apply(self, x: torch.Tensor, statistic: Band, start: int) -> None:
        """As `Sparsifier.apply`."""
        trim_band(x, statistic, start)


SPARSIFIER = Breadcrumbs()
