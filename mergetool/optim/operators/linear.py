"""OnLinear: AdamW's own step, then a share of the way to θ_s.

Source: [OMO] Lu et al. 2024, arXiv 2405.17931, Eq. 1 with F the identity; Wortsman et al. 2021, arXiv 2109.01903.
"""

from __future__ import annotations

import torch

from mergetool.ops.blocks import spans
from mergetool.ops.consensus.linear import lerp
from mergetool.optim.deltas import block_size
from mergetool.optim.job import ROUNDING, Merge, Operator
from mergetool.optim.parts import Binding
from mergetool.optim.rounded import rounded_sum


class Linear(Operator):
    """θ ← (1 − α)·θ + α·θ_s, θ having made its step already."""

    name = "linear"

    def mix(self, theta: torch.Tensor, merge: Merge, binding: Binding) -> None:
        """As `Operator.mix`."""
        if binding.tau is None or not merge.alpha:
            return
        shard, key = binding.shard, merge.key(ROUNDING, binding.name)
        for start, stop in spans(theta.numel(), block_size(theta.device)):
            here, there = theta[start:stop], binding.tau.block(start, stop)
            if merge.stochastic and merge.alpha != 1.0:
                toward = there.sub(here.float()).mul_(merge.alpha)
                theta[start:stop] = rounded_sum(here, toward, key, shard, start)
            else:
                theta[start:stop] = lerp(here.float(), there, merge.alpha).to(theta.dtype)


OPERATOR = Linear()
