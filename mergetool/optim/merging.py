"""One merge of one parameter: θ ← origin + F(Δ) ⊕ F(τ_s), at the cost of the entries that are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from mergetool.ops.noise import SPARSE_BELOW, stream_key
from mergetool.ops.rounding import add_rounded, round_at
from mergetool.ops.sparsify import Threshold, kept_count, rescale_factor, trim
from mergetool.optim.deltas import Delta
from mergetool.optim.sharding import Shard, blocks_of, threshold, top_k
from mergetool.optim.step import ondare_step, onties_step
from mergetool.optim.threads import each_block

UPDATE, REFERENCE, ROUNDING = "0", "1", "rounding"
"""Roles of the random streams. The first two are the models' positions in the offline recipe that a run with K = T
equals, so that both draw the same entries."""


class Picked(NamedTuple):
    """A sparsified delta by its kept entries: local flat indices (int64, ascending) and fp32 values."""

    index: torch.Tensor
    value: torch.Tensor


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

    def weighed(self, value: torch.Tensor, weight: float) -> torch.Tensor:
        """One sparsified delta, clipped and times its weight; in place."""
        if self.clip is not None:
            value.clamp_(-self.clip, self.clip)
        return value.mul_(weight)

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


def merge_(theta: torch.Tensor, origin: torch.Tensor, decay: float, delta: Delta, merge: Merge, binding: Binding) -> None:
    """θ ← decay·origin + [F(Δ) ⊕ F(τ_s)], in place.

    Args:
        theta: the rank's part of the parameter, flat.
        origin: where the deltas are added: `theta` itself for online merging (K = 1), the anchor for Step-K.
        decay: the weight decay that `origin` has still to suffer, as a factor.
        delta: Δ; read to its end before `theta` changes only in the entries of one block.
        merge: settings.
        binding: the parameter's name, shard and τ_s.
    """
    if merge.density < SPARSE_BELOW:
        _merge_sparse(theta, origin, decay, delta, merge, binding)
    else:
        _merge_dense(theta, origin, decay, delta, merge, binding)


def _merge_sparse(
    theta: torch.Tensor, origin: torch.Tensor, decay: float, delta: Delta, merge: Merge, binding: Binding
) -> None:
    kept = _pick(delta, UPDATE, merge, binding)
    tau = None
    if binding.tau is not None and merge.alpha:
        constant = merge.method == "ties" or merge.tau_mask == "fixed"
        settings = (merge.method, merge.density, merge.seed, merge.rescale)
        tau = binding.fixed.get(settings)
        if tau is None:
            tau = _pick(binding.tau, REFERENCE, merge, binding)
            if constant:
                binding.fixed = {settings: tau}
    if origin is not theta:
        _restore(theta, origin, decay, merge, binding)
    if merge.method == "dare":
        # sums of two additions: entries that both keep are few, and are rounded twice
        _add_(theta, kept.index, merge.weighed(kept.value, 1 - merge.alpha), UPDATE, merge, binding)
        if tau is not None:
            _add_(theta, tau.index, merge.weighed(tau.value.clone(), merge.alpha), REFERENCE, merge, binding)
    else:
        index, update, reference = _aligned(kept, tau)
        _add_(theta, index, merge.combine(update, reference), REFERENCE, merge, binding)


def _add_(theta: torch.Tensor, index: torch.Tensor, value: torch.Tensor, role: str, merge: Merge, binding: Binding) -> None:
    """θ[index] += value, rounded as the merge says: in fp32 the update alone is rounded to nearest, as torch does."""
    index, value = index.to(theta.device), value.to(theta.device)
    if not merge.stochastic or (role == UPDATE and theta.dtype == torch.float32):
        if theta.dtype == torch.float32:
            theta.index_add_(0, index, value)
        else:
            theta[index] = (theta[index].float() + value).to(theta.dtype)
        return
    places = torch.from_numpy(binding.shard.to_global(index.cpu().numpy())).to(theta.device)
    exact = theta[index].double().add_(value)
    theta[index] = round_at(exact, theta.dtype, merge.key(ROUNDING + role, binding.name), places)


def _restore(theta: torch.Tensor, origin: torch.Tensor, decay: float, merge: Merge, binding: Binding) -> None:
    """θ ← decay·origin: the roll-back of Step-K."""
    if decay == 1.0:
        theta.copy_(origin)
    else:
        scale_(theta, origin, decay, merge.key("decay", binding.name) if merge.stochastic else None, binding.shard)


def scale_(theta: torch.Tensor, origin: torch.Tensor, factor: float, key: int | None, shard: Shard) -> None:
    """θ ← factor·origin: rounded stochastically where θ's type is too coarse to hold it and there is a key."""
    if key is None or theta.dtype in (torch.float32, torch.float64):
        torch.mul(origin, factor, out=theta)
        return

    def work(start: int, stop: int) -> None:
        base = origin[start:stop]
        theta[start:stop] = rounded_sum(base, base.float().mul_(factor - 1), key, shard, start)

    each_block(theta.numel(), work, theta.device)


def _pick(delta: Delta, role: str, merge: Merge, binding: Binding) -> Picked:
    """The kept entries of one delta, rescaled."""
    shard = binding.shard
    if merge.method == "ties":
        index, value = top_k(delta, shard, kept_count(merge.density, shard.numel))
    else:
        index = shard.kept(merge.key(role, binding.name), merge.density)
        value = delta.take(index)
    scale = 1.0
    if merge.rescale == "l1":
        before = math.fsum(float(delta.block(a, b).abs().sum()) for a, b in blocks_of(shard))
        scale = rescale_factor("l1", merge.density, *shard.total([before, float(value.abs().sum())]))
    else:
        scale = rescale_factor(merge.rescale, merge.density)
    return Picked(index, value if scale == 1.0 else value * scale)


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


def _side(delta: Delta, role: str, merge: Merge, binding: Binding) -> _Side:
    shard, bound = binding.shard, None
    if merge.method == "ties":
        settings = (role, merge.density)
        bound = binding.fixed.get(settings)
        if bound is None:
            bound = threshold(delta, shard, kept_count(merge.density, shard.numel))
            if role == REFERENCE:
                binding.fixed = {settings: bound}
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

    def work(start: int, stop: int) -> None:
        d = update.of(delta, density, shard, start, stop)
        t = None if tau is None else reference.of(tau, density, shard, start, stop)
        total = merge.combine(d, t, scales)
        base = origin[start:stop]
        if merge.stochastic:
            if decay != 1.0:
                total.add_(base, alpha=decay - 1)
            rounded_sum(base, total, key, shard, start, theta[start:stop])
        elif theta.dtype == torch.float32:
            torch.add(base if decay == 1.0 else base * decay, total, out=theta[start:stop])
        else:
            theta[start:stop] = base.float().mul_(decay).add_(total).to(theta.dtype)

    each_block(theta.numel(), work, theta.device)


def rounded_sum(
    x: torch.Tensor, d: torch.Tensor, key: int, shard: Shard, start: int, out: torch.Tensor | None = None
) -> torch.Tensor:
    """x + d rounded stochastically, for the local block from `start`; decided by flat indices in the whole tensor."""
    out = torch.empty_like(x) if out is None else out
    for a, b, at in shard.spans(start, start + x.numel()):
        part = slice(a - start, b - start)
        add_rounded(x[part], d[part], key, at, out[part])
    return out
