"""OnDARE: entries are kept at random, and added.

Source: [OMO] Lu et al. 2024, arXiv 2405.17931, Eq. 3–4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mergetool.ops.masks import kept_at, lane_threshold
from mergetool.ops.rescale import share_left
from mergetool.optim.deltas import Delta
from mergetool.optim.job import REFERENCE, UPDATE, Job, Merge, Operator, Picked, Sums
from mergetool.optim.kernels import Draw, keep_all
from mergetool.optim.parts import AdamPart
from mergetool.optim.sharding import Shard, kept_of
from mergetool.optim.step import ondare_step


class DARE(Operator):
    """F keeps each entry with probability p; ⊕ is the sum."""

    name = "dare"
    by_entries = True

    def share(self, group: Mapping[str, Any]) -> float:
        """As `Operator.share`."""
        return share_left(group["rescale"], group["density"])

    def sparsified(
        self, delta: Delta, statistic: None, key: int, merge: Merge, shard: Shard, start: int, stop: int
    ) -> torch.Tensor:
        """As `Operator.sparsified`."""
        x = delta.block(start, stop)
        if merge.density >= 1.0:
            return x if delta.owned else x.clone()
        keep = shard.mask(key, merge.density, start, stop, x.device)
        return x.mul_(keep) if delta.owned else x * keep

    def combine(self, merge: Merge, delta: torch.Tensor, tau: torch.Tensor | None, scales: tuple[float, float]) -> torch.Tensor:
        """As `Operator.combine`."""
        if merge.clip is None:  # weights and rescaling in one product
            delta.mul_((1 - merge.alpha) * scales[0])
            return delta if tau is None else delta.add_(tau, alpha=merge.alpha * scales[1])
        merge.rescale_and_clip_(delta, tau, scales)
        return ondare_step(delta, tau, merge.alpha)

    def pick(self, wanted: Sequence[tuple[Job, str]]) -> list[Picked]:
        """As `Operator.pick`."""
        if not wanted:
            return []
        shards, keys = [job.binding.shard for job, _ in wanted], [job.key(role) for job, role in wanted]
        indices = kept_of(shards, keys, wanted[0][0].merge.density)
        return [Picked(index, job.source(role).take(index)) for index, (job, role) in zip(indices, wanted, strict=True)]

    def sums(self, jobs: Sequence[Job], kept: Sequence[Picked], taus: Sequence[Picked | None]) -> list[Sums]:
        """As `Operator.sums`: entries that both keep are few, and are rounded twice."""
        updates = [job.merge.weighed(update, 1 - job.merge.alpha) for job, update in zip(jobs, kept, strict=True)]
        mixed = [(job, job.merge.weighed(tau, job.merge.alpha)) for job, tau in zip(jobs, taus, strict=True) if tau is not None]
        return [Sums(jobs, updates, UPDATE), Sums([job for job, _ in mixed], [tau for _, tau in mixed], REFERENCE)]

    def in_one_pass(self, shard: Shard) -> bool:
        """As `Operator.in_one_pass`."""
        return True

    def in_kernel(self, job: Job, part: AdamPart | None) -> dict[str, Any]:
        """As `Operator.in_kernel`."""
        density = job.merge.density
        if density >= 1.0:
            return {"keep": keep_all, "combine": weighted_sum}
        tied = lane_threshold(density)[1] != 0
        return {"keep": keep_random_tied if tied else keep_random, "combine": weighted_sum, "density": density}


def keep_random(x: torch.Tensor, index: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Sixteen bits decide; for kernels, as the two below."""
    return torch.where(kept_at(draw.key, draw.whole, draw.tie, index, False), x, 0.0)


def keep_random_tied(x: torch.Tensor, index: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Sixteen bits decide, and 53 more where they equal the threshold."""
    return torch.where(kept_at(draw.key, draw.whole, draw.tie, index, True), x, 0.0)


def weighted_sum(
    delta: torch.Tensor, tau: torch.Tensor | None, weight_delta: torch.Tensor, weight_tau: torch.Tensor
) -> torch.Tensor:
    """(1 − α)·F(Δ) + α·F(τ_s)."""
    return delta * weight_delta if tau is None else delta * weight_delta + tau * weight_tau


OPERATOR = DARE()
