"""OnTIES: the largest entries are kept, and added where their signs agree.

Source: [OMO] Lu et al. 2024, arXiv 2405.17931, Eq. 5–7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mergetool.ops.threshold import KEEP_ALL, Threshold, kept_count, trim
from mergetool.optim import passes
from mergetool.optim.deltas import Delta
from mergetool.optim.job import REFERENCE, UPDATE, Job, Merge, Operator, Picked, Sums
from mergetool.optim.kernels import Draw, keep_all
from mergetool.optim.largest import threshold, top_k
from mergetool.optim.parts import AdamPart, Binding
from mergetool.optim.sharding import Shard
from mergetool.optim.step import onties_step


class TIES(Operator):
    """F keeps the ⌊p·n⌋ largest entries; a ⊕ b is a + b where the signs agree, else the one of larger magnitude."""

    name = "ties"
    by_entries = True

    def statistic(self, delta: Delta, role: str, merge: Merge, binding: Binding) -> Threshold:
        """As `Operator.statistic`; that of τ_s is remembered."""
        settings, shard = (role, merge.density), binding.shard
        bound = binding.fixed.get(settings)
        if bound is None:
            bound = threshold(delta.ranking or delta, shard, kept_count(merge.density, shard.numel))
            if role == REFERENCE:
                binding.fixed = {settings: bound}
        return bound

    def sparsified(
        self, delta: Delta, statistic: Threshold, key: int, merge: Merge, shard: Shard, start: int, stop: int
    ) -> torch.Tensor:
        """As `Operator.sparsified`."""
        x = delta.block(start, stop)
        x = x if delta.owned else x.clone()
        ranked = x if delta.ranking is None else delta.ranking.block(start, stop).clone()
        for a, b, at in shard.spans(start, stop):
            trim(ranked[a - start : b - start], statistic, at)
        return x if delta.ranking is None else torch.where(ranked != 0, x, 0.0)

    def combine(self, merge: Merge, delta: torch.Tensor, tau: torch.Tensor | None, scales: tuple[float, float]) -> torch.Tensor:
        """As `Operator.combine`."""
        merge.rescale_and_clip_(delta, tau, scales)
        return onties_step(delta, tau, merge.alpha, merge.elect)

    def pick(self, wanted: Sequence[tuple[Job, str]]) -> list[Picked]:
        """As `Operator.pick`."""
        return [_largest(job.source(role), job.binding.shard, job.merge.density) for job, role in wanted]

    def pick_ahead(self, parts: Sequence[AdamPart]) -> list[Picked] | None:
        """As `Operator.pick_ahead`: in one pass over memory for large tensors."""
        if any(part.ranking is not None for part in parts):
            return None
        swept = [passes.worth_sweeping(part) for part in parts]
        passes.update_moments([part for part, one in zip(parts, swept, strict=True) if not one], True)
        return [
            _largest(part.update, part.binding.shard, part.group["density"], passes.above(part) if one else None)
            for part, one in zip(parts, swept, strict=True)
        ]

    def sums(self, jobs: Sequence[Job], kept: Sequence[Picked], taus: Sequence[Picked | None]) -> list[Sums]:
        """As `Operator.sums`."""
        sums = []
        for job, update, tau in zip(jobs, kept, taus, strict=True):
            index, first, second = _aligned(update, tau)
            scales = (update.scale, 1.0 if tau is None else tau.scale)
            sums.append(Picked(index, self.combine(job.merge, first, second, scales)))
        return [Sums(jobs, sums, REFERENCE)]

    def stays(self, merge: Merge) -> bool:
        """As `Operator.stays`."""
        return True

    def in_one_pass(self, shard: Shard) -> bool:
        """As `Operator.in_one_pass`."""
        # thresholds of a sharded tensor are exchanged, which all ranks must do in one order
        return not shard.groups

    def in_kernel(self, job: Job, part: AdamPart | None) -> dict[str, Any]:
        """As `Operator.in_kernel`."""
        merge, tau = job.merge, job.tau
        if merge.density >= 1.0:
            return {"keep": keep_all, "combine": _COMBINES[merge.elect]}
        of_tau = KEEP_ALL if tau is None else self.statistic(tau, REFERENCE, merge, job.binding)
        of_delta = None if part is None else passes.threshold_ahead(part)
        if of_delta is None:
            of_delta = self.statistic(job.delta, UPDATE, merge, job.binding)
        return {"keep": keep_largest, "combine": _COMBINES[merge.elect], "bounds": (of_delta, of_tau), "moments": False}


def _largest(delta: Delta, shard: Shard, density: float, found: Any = None) -> Picked:
    count = kept_count(density, shard.numel)
    if delta.ranking is None:
        return Picked(*top_k(delta, shard, count, found))
    index = top_k(delta.ranking, shard, count)[0]
    return Picked(index, delta.take(index))


def _aligned(a: Picked, b: Picked | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Both on the union of their indices, zero where one keeps nothing."""
    if b is None:
        return a.index, a.value.clone(), None
    place = np.searchsorted(a.index.numpy(), b.index.numpy())
    common = np.zeros(len(place), bool)
    inside = place < len(a.index)
    common[inside] = a.index.numpy()[place[inside]] == b.index.numpy()[inside]
    alone, common = torch.from_numpy(~common), torch.from_numpy(common)
    index = torch.cat([a.index, b.index[alone]])
    first, second = torch.zeros(len(index)), torch.zeros(len(index))
    first[: len(a.index)] = a.value
    second[torch.from_numpy(place)[common]] = b.value[common]
    second[len(a.index) :] = b.value[alone]
    return index, first, second


def keep_largest(x: torch.Tensor, index: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Entries above a threshold; for kernels, as the two below."""
    size = x.abs()
    size = torch.where(size.isnan(), float("inf"), size)  # as `magnitudes` counts them
    return torch.where((size > draw.bound) | ((size == draw.bound) & (index <= draw.last)), x, 0.0)


def combine_weighted(
    delta: torch.Tensor, tau: torch.Tensor | None, weight_delta: torch.Tensor, weight_tau: torch.Tensor
) -> torch.Tensor:
    """The sign is elected on the weighted deltas."""
    return onties_step(delta, tau, weight_tau, "weighted")


def combine_unweighted(
    delta: torch.Tensor, tau: torch.Tensor | None, weight_delta: torch.Tensor, weight_tau: torch.Tensor
) -> torch.Tensor:
    """The sign is elected on the bare deltas."""
    return onties_step(delta, tau, weight_tau, "unweighted")


_COMBINES = {"weighted": combine_weighted, "unweighted": combine_unweighted}

OPERATOR = TIES()
