"""Passes over a parameter's memory: the moments' update, alone or with a search for the largest updates, and whole steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mergetool.ops.blocks import scratch
from mergetool.ops.threshold import Threshold, bracket, kept_count, threshold_between
from mergetool.optim.compiling import compiled
from mergetool.optim.deltas import Delta, joined, padded_flags, scale_and_floor, where_set
from mergetool.optim.kernels import (
    beta_tensor,
    constants,
    kernel_spans,
    merged_since_,
    merged_step_,
    moments_,
    moments_above_,
    moments_between_,
    update_,
)
from mergetool.optim.largest import Found, low_bracket
from mergetool.optim.parts import AdamPart
from mergetool.optim.step import adamw_moments_

FEW = 1 << 19
"""Entries below which a kernel's call costs more than torch's fused AdamW kernel, which serves all such tensors at once."""

SWEPT = 1 << 18
"""Entries from which on OnTIES looks for the largest in the pass over the moments, with a bound guessed from a sample."""


def update_moments(parts: Sequence[AdamPart], compile: bool) -> None:
    """m and v, and nothing else.

    Args:
        parts: of one group.
        compile: whether the large ones are updated by a compiled kernel.
    """
    batches: dict[Any, list[AdamPart]] = {}
    for part in parts:
        m = part.m
        if compile and m.numel() >= FEW and m.dtype != torch.float64:
            compiled(moments_)(part.grad, m, part.v, beta_tensor(part.betas).to(m.device))
        elif m.numel():
            batches.setdefault((m.dtype, m.device), []).append(part)
    for batch in batches.values():
        grads, ms, vs, ts = zip(*[(part.grad, part.m, part.v, part.t) for part in batch], strict=True)
        adamw_moments_(grads, ms, vs, ts, betas=batch[0].betas, eps=batch[0].group["eps"])


AHEAD = 1 << 16
"""Entries from which on a pass of its own for each tensor is quicker than one over the moments of many and another for Δθ."""
_AT_ONCE = 1 << 20  # entries: a compiled function's call costs what 50,000 entries do


class UpdateAhead(Delta):
    """Δθ from moments that are still the last step's: they are updated as it is read, so that each is read once.

    Blocks are read once each, ascending.

    Args:
        part: the parameter's.
    """

    def __init__(self, part: AdamPart) -> None:
        # a method in place of the function that other deltas are given, as of AdamDelta
        self.numel, self.owned, self._part = part.m.numel(), True, part
        numbers = scale_and_floor(part.lr, part.betas, part.group["eps"], int(part.t))
        self._tensors = tuple(one.to(part.m.device) for one in (beta_tensor(part.betas), torch.tensor(numbers)))
        self._first, self._made = 0, part.m.new_empty(0, dtype=torch.float32)

    def block(self, start: int, stop: int) -> torch.Tensor:
        """As `Delta`'s; valid until the next call in this thread."""
        made = self._first + self._made.numel()
        if start < made < stop:
            return torch.cat([self.block(start, made).clone(), self.block(made, stop)])
        if start >= made:
            blocks = max(1, min(_AT_ONCE, self.numel - start) // (stop - start))
            self._first, self._made = start, self._update(start, start + blocks * (stop - start))
        return self._made[start - self._first : stop - self._first]

    def _update(self, start: int, stop: int) -> torch.Tensor:
        part, span, count = self._part, slice(start, stop), stop - start
        if part.m.device.type == "cpu":
            out = torch.from_numpy(scratch("update", count, np.float32))
        else:
            out = part.m.new_empty(count, dtype=torch.float32)
        compiled(update_)(part.grad[span], part.m[span], part.v[span], *self._tensors, out)
        return out


def worth_sweeping(part: AdamPart) -> bool:
    """Whether `above` is quicker than an update and a search of its own."""
    # by the whole tensor's size: the ranks exchange counts, and all of them must do so
    large = part.binding.shard.numel >= SWEPT
    return large and part.parameter.device.type == "cpu" and part.parameter.dtype != torch.float64


def above(part: AdamPart) -> Found:
    """The moments' update, and the entries of Δθ above a bound that a sample of the moments to come gives.

    Returns:
        (local flat indices, values) of entries beyond the bound, with near certainty the k largest among them.
    """
    shard, delta = part.binding.shard, part.update
    sample = delta.sample_ahead(part.grad, part.betas, 14, 64) if shard.held else np.empty(0, np.float32)
    low = low_bracket(sample, shard, kept_count(part.group["density"], shard.numel))
    square = delta.square_bound(low)
    if square is None:
        update_moments([part], True)
        return delta.above(low)
    tensors, found = (beta_tensor(part.betas), torch.tensor(square)), []
    for start, stop in kernel_spans(part.m.numel()):
        flags = padded_flags(stop - start)
        span, here = slice(start, stop), torch.from_numpy(flags)[: stop - start]
        compiled(moments_above_)(part.grad[span], part.m[span], part.v[span], *tensors, here)
        found.append(delta.among(where_set(flags) + start, low))
    return joined(found)


def threshold_ahead(part: AdamPart) -> Threshold | None:
    """The moments' update, and what keeps the largest entries of Δθ, of a tensor that is whole here.

    The pass that updates the moments finds the entries between two magnitudes, which a sample of the moments to come
    gives, and counts those beyond; the threshold is among the former.

    Returns:
        None where the threshold is still to be searched for: the tensor is small, or the sample was misleading.
    """
    m, delta = part.m, part.update
    if m.numel() < SWEPT or part.parameter.device.type != "cpu":
        update_moments([part], True)
        return None
    k = kept_count(part.group["density"], m.numel())
    low, high = bracket(delta.sample_ahead(part.grad, part.betas, 13, 256), k / m.numel())
    tensors = beta_tensor(part.betas), torch.tensor([delta.scale, delta.floor]), torch.tensor([low, high])
    beyond, found = 0, []
    for start, stop in kernel_spans(m.numel()):
        flags = padded_flags(stop - start)
        span, here = slice(start, stop), torch.from_numpy(flags)[: stop - start]
        beyond += int(compiled(moments_between_)(part.grad[span], m[span], part.v[span], *tensors, here))
        index = where_set(flags) + start
        found.append((index, delta.take(torch.from_numpy(index)).numpy()))
    return threshold_between(*joined(found), k - beyond)


def step_in_one_pass(part: AdamPart, tau: Delta | None, anchor: torch.Tensor | None, **how: Any) -> None:
    """`merged_step_` over the parameter, or `merged_since_` where AdamW has made its steps already.

    Args:
        part: the parameter.
        tau: τ_s, None for zero.
        anchor: θ after the last merge, flat; None for a step from the moments.
        how: arguments of `constants`.
    """
    theta = part.theta
    update = scale_and_floor(part.lr, part.betas, part.group["eps"], int(part.t))
    numbers, streams, kind = constants(part.betas, update, start=part.binding.shard.first, **how)
    numbers, streams = numbers.to(theta.device), streams.to(theta.device)
    kernel, read = (merged_step_, (part.grad, part.m, part.v)) if anchor is None else (merged_since_, (anchor,))
    for start, stop in kernel_spans(theta.numel()):
        span = slice(start, stop)
        operands = (None, None) if tau is None else tau.operands(start, stop)
        compiled(kernel)(theta[span], *(x[span] for x in read), *operands, numbers, streams, kind)
        streams[-1] += stop - start
