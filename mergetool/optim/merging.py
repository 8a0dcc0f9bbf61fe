"""One merge of a group's parameters: θ ← origin + F(Δ) ⊕ F(τ_s), at the cost of the entries that are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from mergetool.ops.blocks import spans
from mergetool.ops.noise import SPARSE_BELOW, stream_key
from mergetool.ops.rounding import add_rounded, round_at
from mergetool.ops.sparsify import Threshold, kept_count, rescale_factor, trim
from mergetool.optim.deltas import Delta, block_size
from mergetool.optim.sharding import Shard, blocks_of, kept_of, threshold, top_k
from mergetool.optim.step import ondare_step, onties_step

UPDATE, REFERENCE, ROUNDING = "0", "1", "rounding"
"""Roles of the random streams. The first two are the models' positions in the offline recipe that a run with K = T
equals, so that both draw the same entries."""

_WIDE = (torch.float32, torch.float64)


class Picked(NamedTuple):
    """A sparsified delta by its kept entries: local flat indices (int64, ascending), fp32 values, and their rescaling."""

    index: torch.Tensor
    value: torch.Tensor
    scale: float = 1.0


@dataclass
class Binding:
    """What an optimizer knows about one parameter and can find again: nothing of it goes into a state_dict.

    `fixed` holds what stays the same between merges: the kept entries of τ where their mask is fixed or they are the
    largest, under the settings that they were found with.
    """

    name: str
    shard: Shard
    tau: Delta | None = None
    looked_up: bool = False
    fixed: dict[Any, Any] = field(default_factory=dict)


class Merge(NamedTuple):
    """One merge: the group's settings, the merge's number (from 0) and how sums are rounded."""

    method: str
    density: float
    alpha: float
    rescale: str
    tau_mask: str
    elect: str
    clip: float | None
    seed: int
    number: int
    stochastic: bool

    def key(self, role: str, name: str) -> int:
        """The random stream of one delta of this merge."""
        number = 0 if role == REFERENCE and self.tau_mask == "fixed" else self.number
        return stream_key(self.seed, number, role, name)

    def weighed(self, kept: Picked, weight: float) -> Picked:
        """One sparsified delta, rescaled, clipped and times its weight; newly made."""
        value = kept.value * kept.scale  # one product after the other, as the offline engine has it
        if self.clip is not None:
            value.clamp_(-self.clip, self.clip)
        return Picked(kept.index, value.mul_(weight))

    def combine(self, delta: torch.Tensor, tau: torch.Tensor | None, scales: tuple[float, float] = (1.0, 1.0)) -> torch.Tensor:
        """F(Δ) ⊕ F(τ_s) with their weights 1 − α and α; `scales` are the rescaling that is still due."""
        if self.clip is None and self.method == "dare":
            delta.mul_((1 - self.alpha) * scales[0])
            return delta if tau is None else delta.add_(tau, alpha=self.alpha * scales[1])
        for x, scale in zip((delta, tau), scales, strict=True):
            if x is not None and scale != 1.0:
                x.mul_(scale)
            if x is not None and self.clip is not None:
                x.clamp_(-self.clip, self.clip)
        if self.method == "ties":
            return onties_step(delta, tau, self.alpha, self.elect)
        return ondare_step(delta, tau, self.alpha)


class Job(NamedTuple):
    """One parameter's part of a merge.

    Args:
        theta: the rank's part of the parameter, flat.
        origin: where the deltas are added: `theta` itself for online merging (K = 1), the anchor for Step-K.
        decay: the weight decay that `origin` has still to suffer, as a factor.
        delta: Δ; read to its end before `theta` changes only in the entries of one block.
        merge: settings.
        binding: the parameter's name, shard and τ_s.
    """

    theta: torch.Tensor
    origin: torch.Tensor
    decay: float
    delta: Delta
    merge: Merge
    binding: Binding

    @property
    def tau(self) -> Delta | None:
        """τ_s, None where none of it is merged."""
        return self.binding.tau if self.merge.alpha else None

    def source(self, role: str) -> Delta:
        """Δ or τ_s, by its role."""
        return self.delta if role == UPDATE else self.binding.tau

    def key(self, role: str) -> int:
        """The random stream of `role`."""
        return self.merge.key(role, self.binding.name)


def merge_(jobs: Sequence[Job], updates: Sequence[Picked] | None = None) -> None:
    """θ ← decay·origin + [F(Δ) ⊕ F(τ_s)], in place, for the parameters of a group.

    Args:
        jobs: of one method and density.
        updates: F(Δ) of each without its rescaling, where it is known already; read below density 1/32 alone.
    """
    if not jobs:
        return
    if jobs[0].merge.density < SPARSE_BELOW:
        _merge_sparse(jobs, updates)
    else:
        for job in jobs:
            _merge_dense(*job)


def _merge_sparse(jobs: Sequence[Job], updates: Sequence[Picked] | None) -> None:
    taus = [_remembered(job) for job in jobs]
    missing = [i for i, job in enumerate(jobs) if taus[i] is None and job.tau is not None]
    # all that is drawn at random is drawn at once: a call has its price, and most tensors keep few entries
    wanted = [(job, UPDATE) for job in jobs] + [(jobs[i], REFERENCE) for i in missing]
    picked = _picked(wanted) if updates is None else [*updates, *_picked(wanted[len(jobs) :])]
    picked = [p._replace(scale=_scale(p.value, *of)) for p, of in zip(picked, wanted, strict=True)]
    kept, drawn = picked[: len(jobs)], picked[len(jobs) :]
    for i, tau in zip(missing, drawn, strict=True):
        _remember(jobs[i], tau)
        taus[i] = tau
    for job in jobs:
        if job.origin is not job.theta:
            _restore(job)
    if jobs[0].merge.method == "dare":
        # sums of two additions: entries that both keep are few, and are rounded twice
        _add_(jobs, [job.merge.weighed(update, 1 - job.merge.alpha) for job, update in zip(jobs, kept, strict=True)], UPDATE)
        with_tau = [(job, tau) for job, tau in zip(jobs, taus, strict=True) if tau is not None]
        weighed = [job.merge.weighed(tau, job.merge.alpha) for job, tau in with_tau]
        _add_([job for job, _ in with_tau], weighed, REFERENCE)
    else:
        sums = []
        for job, update, tau in zip(jobs, kept, taus, strict=True):
            index, first, second = _aligned(update, tau)
            scales = (update.scale, 1.0 if tau is None else tau.scale)
            sums.append(Picked(index, job.merge.combine(first, second, scales)))
        _add_(jobs, sums, REFERENCE)


def _picked(wanted: Sequence[tuple[Job, str]]) -> list[Picked]:
    """The kept entries of the Δ or τ_s (by its role) of each job, without their rescaling."""
    if not wanted:
        return []
    density, shards = wanted[0][0].merge.density, [job.binding.shard for job, _ in wanted]
    deltas = [job.source(role) for job, role in wanted]
    if wanted[0][0].merge.method == "ties":
        return [Picked(*top_k(d, s, kept_count(density, s.numel))) for d, s in zip(deltas, shards, strict=True)]
    indices = kept_of(shards, [job.key(role) for job, role in wanted], density)
    return [Picked(index, delta.take(index)) for index, delta in zip(indices, deltas, strict=True)]


def _scale(value: torch.Tensor, job: Job, role: str) -> float:
    """What the kept entries of a delta are multiplied by."""
    shard, merge = job.binding.shard, job.merge
    if merge.rescale != "l1":
        return rescale_factor(merge.rescale, merge.density)
    before = math.fsum(float(job.source(role).block(a, b).abs().sum()) for a, b in blocks_of(shard))
    return rescale_factor("l1", merge.density, *shard.total([before, float(value.abs().sum())]))


def _remembered(job: Job) -> Picked | None:
    """F(τ_s) where it is the last merge's."""
    if job.tau is None:
        return None
    return job.binding.fixed.get((job.merge.method, job.merge.density, job.merge.seed, job.merge.rescale))


def _remember(job: Job, tau: Picked) -> None:
    """Keep F(τ_s) where it will be the same at the next merge."""
    merge = job.merge
    if merge.method == "ties" or merge.tau_mask == "fixed":
        job.binding.fixed = {(merge.method, merge.density, merge.seed, merge.rescale): tau}


def _add_(jobs: Sequence[Job], picked: Sequence[Picked], role: str) -> None:
    """θ[index] += value, rounded as the merge says: in fp32 the update alone is rounded to nearest, as torch does."""
    rounded: dict[tuple[torch.dtype, torch.device], list[tuple[Job, torch.Tensor, torch.Tensor]]] = {}
    for job, (index, value, _) in zip(jobs, picked, strict=True):
        theta = job.theta
        index, value = index.to(theta.device), value.to(theta.device)
        if job.merge.stochastic and not (role == UPDATE and theta.dtype == torch.float32):
            rounded.setdefault((theta.dtype, theta.device), []).append((job, index, value))
        elif theta.dtype in _WIDE:
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


def _restore(job: Job) -> None:
    """θ ← decay·origin: the roll-back of Step-K."""
    if job.decay == 1.0:
        job.theta.copy_(job.origin)
    else:
        key = job.key("decay") if job.merge.stochastic else None
        scale_(job.theta, job.origin, job.decay, key, job.binding.shard)


def scale_(theta: torch.Tensor, origin: torch.Tensor, factor: float, key: int | None, shard: Shard) -> None:
    """θ ← factor·origin: rounded stochastically where θ's type is too coarse to hold it and there is a key."""
    if key is None or theta.dtype in _WIDE:
        torch.mul(origin, factor, out=theta)
        return
    for start, stop in spans(theta.numel(), block_size(theta.device)):
        base = origin[start:stop]
        theta[start:stop] = rounded_sum(base, base.float().mul_(factor - 1), key, shard, start)


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


class _Side(NamedTuple):
    """How to sparsify a block of one delta."""

    key: int
    bound: Threshold | None
    scale: float

    def of(self, delta: Delta, density: float, shard: Shard, start: int, stop: int) -> torch.Tensor:
        """F of the local block [start, stop), without the rescaling: newly made."""
        x = delta.block(start, stop)
        if self.bound is None and density < 1.0:
            keep = shard.mask(self.key, density, start, stop, x.device)
            return x.mul_(keep) if delta.owned else x * keep
        x = x if delta.owned else x.clone()
        if self.bound is not None:
            for a, b, at in shard.spans(start, stop):
                trim(x[a - start : b - start], self.bound, at)
        return x


def bound_of(delta: Delta, role: str, merge: Merge, binding: Binding) -> Threshold:
    """What keeps the largest entries of a delta; that of τ_s is remembered."""
    settings, shard = (role, merge.density), binding.shard
    bound = binding.fixed.get(settings)
    if bound is None:
        bound = threshold(delta, shard, kept_count(merge.density, shard.numel))
        if role == REFERENCE:
            binding.fixed = {settings: bound}
    return bound


def _side(delta: Delta, role: str, merge: Merge, binding: Binding) -> _Side:
    shard = binding.shard
    bound = bound_of(delta, role, merge, binding) if merge.method == "ties" else None
    side = _Side(merge.key(role, binding.name), bound, 1.0)
    if merge.rescale != "l1":
        return side._replace(scale=rescale_factor(merge.rescale, merge.density))
    sums = [[float(delta.block(a, b).abs().sum()) for a, b in blocks_of(shard)], []]
    for a, b in blocks_of(shard):
        sums[1].append(float(side.of(delta, merge.density, shard, a, b).abs().sum()))
    before, after = shard.total([math.fsum(sums[0]), math.fsum(sums[1])])
    return side._replace(scale=rescale_factor("l1", merge.density, before, after))


def _merge_dense(theta: torch.Tensor, origin: torch.Tensor, decay: float, delta: Delta, merge: Merge, binding: Binding) -> None:
    shard, density = binding.shard, merge.density
    tau = binding.tau if merge.alpha else None
    update = _side(delta, UPDATE, merge, binding)
    reference = None if tau is None else _side(tau, REFERENCE, merge, binding)
    key = merge.key(ROUNDING, binding.name)
    scales = (update.scale, 1.0 if reference is None else reference.scale)

    for start, stop in spans(theta.numel(), block_size(theta.device)):
        d = update.of(delta, density, shard, start, stop)
        t = None if tau is None else reference.of(tau, density, shard, start, stop)
        total = merge.combine(d, t, scales)
        base = origin[start:stop]
        if decay != 1.0:
            total.add_(base, alpha=decay - 1)
        if merge.stochastic:
            rounded_sum(base, total, key, shard, start, theta[start:stop])
        elif theta.dtype in _WIDE:
            torch.add(base, total, out=theta[start:stop])
        else:
            theta[start:stop] = base.float().add_(total).to(theta.dtype)


def rounded_sum(
    x: torch.Tensor, d: torch.Tensor, key: int, shard: Shard, start: int, out: torch.Tensor | None = None
) -> torch.Tensor:
    """x + d rounded stochastically, for the local block from `start`; decided by flat indices in the whole tensor."""
    out = torch.empty_like(x) if out is None else out
    for a, b, at in shard.spans(start, start + x.numel()):
        part = slice(a - start, b - start)
        add_rounded(x[part], d[part], key, at, out[part])
    return out
