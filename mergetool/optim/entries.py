"""A merge by its kept entries alone: θ is touched nowhere else, so that the cost follows their number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from mergetool.ops.rescale import reads_norms, rescale_factor
from mergetool.ops.rounding import round_at
from mergetool.optim.job import REFERENCE, ROUNDING, UPDATE, Job, Picked
from mergetool.optim.rounded import WIDE, scale_
from mergetool.optim.sharding import blocks_of


def merge_entries(jobs: Sequence[Job], updates: Sequence[Picked] | None = None) -> None:
    """θ ← decay·origin + [F(Δ) ⊕ F(τ_s)], in place, for the parameters of a group.

    Args:
        jobs: of one operator and density.
        updates: F(Δ) of each without its rescaling, where it is known already.
    """
    operator = jobs[0].merge.operator
    taus = [_remembered(job) for job in jobs]
    missing = [i for i, job in enumerate(jobs) if taus[i] is None and job.tau is not None]
    # all that is drawn at random is drawn at once: a call has its price, and most tensors keep few entries
    wanted = [(job, UPDATE) for job in jobs] + [(jobs[i], REFERENCE) for i in missing]
    picked = operator.pick(wanted) if updates is None else [*updates, *operator.pick(wanted[len(jobs) :])]
    picked = [p._replace(scale=_scale(p.value, *of)) for p, of in zip(picked, wanted, strict=True)]
    kept, drawn = picked[: len(jobs)], picked[len(jobs) :]
    for i, tau in zip(missing, drawn, strict=True):
        _remember(jobs[i], tau)
        taus[i] = tau
    for job in jobs:
        if job.origin is not job.theta:
            _restore(job)
    for sums in operator.sums(jobs, kept, taus):
        _add_(sums.jobs, sums.picked, sums.role)


def _scale(value: torch.Tensor, job: Job, role: str) -> float:
    """What the kept entries of a delta are multiplied by."""
    shard, merge = job.binding.shard, job.merge
    if not reads_norms(merge.rescale):
        return rescale_factor(merge.rescale, merge.density)
    before = math.fsum(float(job.source(role).block(a, b).abs().sum()) for a, b in blocks_of(shard))
    return rescale_factor(merge.rescale, merge.density, *shard.total([before, float(value.abs().sum())]))


def _settings(job: Job) -> tuple[object, ...]:
    """What F(τ_s) depends on."""
    return job.merge.operator, job.merge.density, job.merge.seed, job.merge.rescale


def _remembered(job: Job) -> Picked | None:
    """F(τ_s) where it is the last merge's."""
    return None if job.tau is None else job.binding.fixed.get(_settings(job))


def _remember(job: Job, tau: Picked) -> None:
    """Keep F(τ_s) where it will be the same at the next merge."""
    if job.merge.operator.stays(job.merge):
        job.binding.fixed = {_settings(job): tau}


def _restore(job: Job) -> None:
    """θ ← decay·origin: the roll-back of Step-K."""
    if job.decay == 1.0:
        job.theta.copy_(job.origin)
    else:
        key = job.key("decay") if job.merge.stochastic else None
        scale_(job.theta, job.origin, job.decay, key, job.binding.shard)


def _add_(jobs: Sequence[Job], picked: Sequence[Picked], role: str) -> None:
    """θ[index] += value, rounded as the merge says: in fp32 the update alone is rounded to nearest, as torch does."""
    rounded: dict[tuple[torch.dtype, torch.device], list[tuple[Job, torch.Tensor, torch.Tensor]]] = {}
    for job, (index, value, _) in zip(jobs, picked, strict=True):
        theta = job.theta
        index, value = index.to(theta.device), value.to(theta.device)
        if job.merge.stochastic and not (role == UPDATE and theta.dtype == torch.float32):
            rounded.setdefault((theta.dtype, theta.device), []).append((job, index, value))
        elif theta.dtype in WIDE:
            theta.scatter_add_(0, index, value.to(theta.dtype))
        else:
            theta.put_(index, (theta.take(index).float() + value).to(theta.dtype))
    for (dtype, device), group in rounded.items():  # a few thousand entries of each tensor: rounded together
        counts = [index.numel() for _, index, _ in group]
        exact = torch.cat([job.theta.take(index) for job, index, _ in group]).double()
        exact.add_(torch.cat([value for *_, value in group]))
        places = np.concatenate([job.binding.shard.to_global(index.cpu().numpy()) for job, index, _ in group])
        keys = np.repeat(np.array([job.key(ROUNDING + role) for job, *_ in group], np.uint64), counts)
        sums = round_at(exact, dtype, keys, torch.from_numpy(places).to(device))
        for (job, index, _), part in zip(group, sums.split(counts), strict=True):
            job.theta.put_(index, part)
