"""One model as it is, or scaled.

Source: mergekit 0.1.5's passthrough.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mergetool.ops.consensus import Buffer, Consensus, WholeInputs


class Passthrough(Consensus):
    """scale · θ; at scale 1 the model comes back byte for byte."""

    def statistic(self, inputs: WholeInputs) -> float:
        """Nothing of the entries."""
        return inputs.own[0]["scale"]

    def combine(self, parts: Sequence[torch.Tensor], statistic: float, buffer: Buffer) -> torch.Tensor:
        """As `Consensus.combine`."""
        return parts[0] if statistic == 1.0 else torch.mul(parts[0], statistic, out=buffer("mixed"))


CONSENSUS = Passthrough()
