"""A merge that walks the tensor block by block: any operator, any type, any shard."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from mergetool.ops.rescale import reads_norms, rescale_factor
from mergetool.optim.deltas import Delta
from mergetool.optim.job import REFERENCE, ROUNDING, UPDATE, Job
from mergetool.optim.rounded import WIDE, rounded_sum
from mergetool.optim.sharding import blocks_of


class _Side(NamedTuple):
    """How to sparsify a block of one delta."""

    job: Job
    delta: Delta
    key: int
    statistic: Any
    scale: float = 1.0

    def of(self, start: int, stop: int) -> torch.Tensor:
        """F of the local block [start, stop), without the rescaling: newly made."""
        merge, shard = self.job.merge, self.job.binding.shard
        return merge.operator.sparsified(self.delta, self.statistic, self.key, merge, shard, start, stop)


def _side(job: Job, role: str) -> _Side:
    delta, merge, shard = job.source(role), job.merge, job.binding.shard
    side = _Side(job, delta, job.key(role), merge.operator.statistic(delta, role, merge, job.binding))
    if not reads_norms(merge.rescale):
        return side._replace(scale=rescale_factor(merge.rescale, merge.density))
    sums = [[float(delta.block(a, b).abs().sum()) for a, b in blocks_of(shard)], []]
    for a, b in blocks_of(shard):  # an operator that needs whole rows keeps everything, and has no rescaling
        sums[1].append(float(side.of(a, b).abs().sum()))
    before, after = shard.total([math.fsum(sums[0]), math.fsum(sums[1])])
    return side._replace(scale=rescale_factor(merge.rescale, merge.density, before, after))


def merge_blocks(job: Job) -> None:
    """θ ← decay·origin + [F(Δ) ⊕ F(τ_s)], in place."""
    theta, origin, decay, merge, shard = job.theta, job.origin, job.decay, job.merge, job.binding.shard
    update = _side(job, UPDATE)
    reference = None if job.tau is None else _side(job, REFERENCE)
    key = job.key(ROUNDING)
    scales = (update.scale, 1.0 if reference is None else reference.scale)

    for start, stop in merge.operator.blocks(shard, theta.device):
        d = update.of(start, stop)
        t = None if reference is None else reference.of(start, stop)
        total = merge.operator.combine(merge, d, t, scales)
        base = origin[start:stop]
        if decay != 1.0:
            total.add_(base, alpha=decay - 1)
        if merge.stochastic:
            rounded_sum(base, total, key, shard, start, theta[start:stop])
        elif theta.dtype in WIDE:
            torch.add(base, total, out=theta[start:stop])
        else:
            theta[start:stop] = base.float().add_(total).to(theta.dtype)
