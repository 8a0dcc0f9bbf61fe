"""NearSwap: the base model, each entry moved toward another model's by at most t.

Source: alchemonaut 2024, huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001; mergekit 0.1.5's nearswap.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mergetool.ops.consensus import Buffer, Consensus, WholeInputs
from mergetool.ops.consensus.sum import add_delta

_LEAST = 1e-6  # distances below it count as this much


class NearSwap(Consensus):
    """a + min(1, t/|a − b|)·(b − a); exactly b where that is all of the way."""

    def statistic(self, inputs: WholeInputs) -> float:
        """Nothing of the entries."""
        return inputs.options["t"]

    def combine(self, parts: Sequence[torch.Tensor], statistic: float, buffer: Buffer) -> torch.Tensor:
        """As `Consensus.combine`."""
        base, other = parts
        way = torch.sub(other, base, out=buffer("way"))
        share = torch.abs(way, out=buffer("share")).clamp_min_(_LEAST).reciprocal_().mul_(statistic).clamp_(0.0, 1.0)
        out = add_delta(base, way.mul_(share), 1.0, buffer("mixed"))
        return torch.where(share.eq_(1.0).bool(), other, out, out=out)


CONSENSUS = NearSwap()
