"""Sums and products rounded stochastically, by flat indices in the whole tensor: the same on one rank and on eight."""

from __future__ import annotations

import torch

from mergetool.ops.blocks import spans
from mergetool.ops.rounding import add_rounded
from mergetool.optim.deltas import block_size
from mergetool.optim.sharding import Shard

WIDE = (torch.float32, torch.float64)
COARSE = (torch.bfloat16, torch.float16)


def rounded_sum(
    x: torch.Tensor, d: torch.Tensor, key: int, shard: Shard, start: int, out: torch.Tensor | None = None
) -> torch.Tensor:
    """x + d rounded stochastically, for the local block from `start`."""
    out = torch.empty_like(x) if out is None else out
    for a, b, at in shard.spans(start, start + x.numel()):
        part = slice(a - start, b - start)
        add_rounded(x[part], d[part], key, at, out[part])
    return out


def scale_(theta: torch.Tensor, origin: torch.Tensor, factor: float, key: int | None, shard: Shard) -> None:
    """θ ← factor·origin: rounded stochastically where θ's type is too coarse to hold it and there is a key."""
    if key is None or theta.dtype in WIDE:
        torch.mul(origin, factor, out=theta)
        return
    for start, stop in spans(theta.numel(), block_size(theta.device)):
        base = origin[start:stop]
        theta[start:stop] = rounded_sum(base, base.float().mul_(factor - 1), key, shard, start)
