"""AdamW whose every K-th step is merged: what OnDARE, OnTIES and OnLinear have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mergetool.ops.blocks import spans
from mergetool.ops.noise import SPARSE_BELOW, stream_key
from mergetool.ops.sparsify import KEEP_ALL, Threshold, bracket, kept_count, rescale_factor, threshold_between
from mergetool.optim.deltas import AdamDelta, Delta, joined, padded_flags, scale_and_floor, where_set
from mergetool.optim.kernels import (
    FEW,
    SPAN,
    SWEPT,
    beta_tensor,
    compiled,
    compiles,
    constants,
    merged_since_,
    merged_step_,
    moments_,
    moments_above_,
    moments_between_,
)
from mergetool.optim.merging import (
    REFERENCE,
    ROUNDING,
    UPDATE,
    Binding,
    Job,
    Picked,
    bound_of,
    merge_,
    rounded_sum,
    scale_,
)
from mergetool.optim.names import NamedParameters, attach
from mergetool.optim.online import Anyref, Merging, Method
from mergetool.optim.settings import DEFAULTS, check_adamw
from mergetool.optim.sharding import Found, Shard, local, low_bracket, top_k
from mergetool.optim.step import adamw_, adamw_moments_, adamw_rounded_

_LOW = (torch.bfloat16, torch.float16)
Params = Any


class MergingAdamW(Merging):
    """AdamW whose every K-th step is merged; the three public classes differ in `method` and defaults alone."""

    def __init__(self, method: Method, params: Params, reference: Anyref, names: NamedParameters | None, **given: Any) -> None:
        self._prepare(method, reference, names)
        super().__init__(params, DEFAULTS[method] | given)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("compile", None)  # a checkpoint from before there was the choice

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch does; the group's names and shapes are checked against the reference."""
        if self._names and isinstance(param_group, dict):
            params = param_group["params"]
            param_group["params"] = [params] if isinstance(params, torch.Tensor) else list(params)
            if not any(isinstance(p, tuple) for p in param_group["params"]):
                attach(param_group, self._names)
        super().add_param_group(param_group)
        group = self.param_groups.pop()
        check_adamw(group)
        self._admit(group)
        self.param_groups.append(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step: AdamW, and at every K-th the merge.

        Args:
            closure: reevaluates the model and returns the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, index, held in self._moving():
            for _, p in held:
                self._ready(p, group)
                self.state[p]["step"] += 1
            # at K = 1 the merge reads Δθ straight from Adam's moments, and no plain step is made
            online = group["every"] == 1 and not self._unsparsified(group)
            if not online:
                self._plain_steps(held, group, index)
            self._merges(held, online, group, index)
        return loss

    def _unsparsified(self, group: dict[str, Any]) -> bool:
        """True where merging is AdamW's own step: everything is kept and nothing added (or it is added afterwards)."""
        return self.method == "linear" or (group["density"] >= 1.0 and not group["alpha"] and group["clip"] is None)

    def _ready(self, p: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            dtype = torch.float32 if group["moments"] == "float32" and p.dtype in _LOW else p.dtype
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(p, dtype=dtype)
            state["exp_avg_sq"] = torch.zeros_like(p, dtype=dtype)
        if group["every"] > 1 and "anchor" not in state and not self._unsparsified(group):
            state["anchor"] = p.detach().clone()
            if group["weight_decay"]:
                state["anchor_decay"] = torch.ones((), dtype=torch.float64)

    def _hyper(self, group: dict[str, Any]) -> dict[str, Any]:
        return {"betas": tuple(group["betas"]), "eps": group["eps"]}

    def _flat(self, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(gradient, m, v, t), flat, of this rank."""
        state = self.state[p]
        grad = getattr(p.grad, "_local_tensor", p.grad).detach().contiguous().view(-1)
        return grad, local(state["exp_avg"]), local(state["exp_avg_sq"]), state["step"]

    def _plain_steps(self, held: list[tuple[int, torch.Tensor]], group: dict[str, Any], index: int) -> None:
        """AdamW's step as torch makes it; in fp32 the very kernel and the very bits."""
        lr, decay = float(group["lr"]), group["weight_decay"]
        fast = any(p.dtype in _LOW for _, p in held) and self._fast(held, group)
        batches: dict[Any, list[torch.Tensor]] = {}
        for i, p in held:
            if not local(p).numel():
                continue
            state = self.state[p]
            if "anchor_decay" in state:
                state["anchor_decay"] *= 1 - lr * decay
            coarse = p.dtype in _LOW and (group["rounding"] == "stochastic" or state["exp_avg"].dtype != p.dtype)
            if coarse and lr:
                self._rounded_step(p, group, self._binding(p, group, i, index), fast)
            elif coarse:
                grad, m, v, t = self._flat(p)
                adamw_moments_([grad], [m], [v], [t], **self._hyper(group))
            else:
                batches.setdefault((p.dtype, local(p).device), []).append(p)
        for batch in batches.values():
            grads, ms, vs, ts = zip(*[self._flat(p) for p in batch], strict=True)
            adamw_([local(p) for p in batch], grads, ms, vs, ts, lr=lr, weight_decay=decay, **self._hyper(group))

    def _rounded_step(self, p: torch.Tensor, group: dict[str, Any], binding: Binding, fast: bool) -> None:
        grad, m, v, t = self._flat(p)
        key = stream_key(group["seed"], int(t), "step", binding.name)
        if fast and self._for_kernel(p, binding):
            decay, stochastic = 1 - float(group["lr"]) * group["weight_decay"], group["rounding"] == "stochastic"
            self._run_kernel(p, None, binding, True, group, decay=decay, keys=(0, 0, key), stochastic=stochastic)
            return

        def add(x: torch.Tensor, d: torch.Tensor, start: int) -> torch.Tensor:
            if group["rounding"] == "nearest":
                return x.float().add_(d).to(x.dtype)
            return rounded_sum(x, d, key, binding.shard, start)

        adamw_rounded_(
            local(p), grad, m, v, t, add,
            lr=float(group["lr"]), weight_decay=group["weight_decay"], **self._hyper(group),
        )  # fmt: skip

    def _online_moments(self, params: list[torch.Tensor], group: dict[str, Any], fast: bool) -> None:
        batches: dict[Any, list[torch.Tensor]] = {}
        betas = beta_tensor(group["betas"])
        for p in params:
            grad, m, v, _ = self._flat(p)
            if fast and m.numel() >= FEW and m.dtype != torch.float64:
                compiled(moments_)(grad, m, v, betas.to(m.device))
            elif m.numel():
                batches.setdefault((m.dtype, m.device), []).append(p)
        for batch in batches.values():
            adamw_moments_(*zip(*[self._flat(p) for p in batch], strict=True), **self._hyper(group))

    def _merges(self, held: list[tuple[int, torch.Tensor]], online: bool, group: dict[str, Any], index: int) -> None:
        due = [(i, p) for i, p in held if self._merging_now(group, int(self.state[p]["step"]))]
        if online and not due:
            self._online_moments([p for _, p in held], group, self._fast(held, group))
        if not due:
            return
        group["merges"] += 1
        group["merged_alpha"] += group["alpha"]
        if self._unsparsified(group) and self.method != "linear":
            return
        bound = [(p, self._binding(p, group, i, index)) for i, p in due]
        if self.method == "linear":
            for p, binding in bound:
                self._interpolate(p, self._number(p, group), group, binding)
            return
        updates, fast = None, self._fast(due, group)
        if fast and group["density"] >= SPARSE_BELOW and group["rescale"] != "l1":
            bound = [item for item in bound if not self._in_one_pass(*item, online, group)]
        if online and fast and self.method == "ties" and group["density"] < SPARSE_BELOW:
            updates = self._largest(bound, group)
        elif online:
            self._online_moments([p for p, _ in bound], group, fast)
        merge_([self._job_of(*item, online, group) for item in bound], updates)
        if not online:
            for p, _ in bound:
                self.state[p]["anchor"].copy_(p)
            for _, p in due:
                if "anchor_decay" in self.state[p]:
                    self.state[p]["anchor_decay"].fill_(1.0)

    def _fast(self, held: list[tuple[int, torch.Tensor]], group: dict[str, Any]) -> bool:
        return compiles(group["compile"], (p for _, p in held))

    def _number(self, p: torch.Tensor, group: dict[str, Any]) -> int:
        """Of this merge, from 0."""
        return int(self.state[p]["step"]) // group["every"] - 1

    def _job_of(self, p: torch.Tensor, binding: Binding, online: bool, group: dict[str, Any]) -> Job:
        state, lr = self.state[p], float(group["lr"])
        if not online:
            decay = float(state.get("anchor_decay", 1.0))
            return self._job(p, local(state["anchor"]), decay, None, self._number(p, group), group, binding)
        decay = 1 - lr * group["weight_decay"]
        if group["density"] < SPARSE_BELOW:  # what is not kept decays too
            self._decay(local(p), decay, group, int(state["step"]), binding)
            decay = 1.0
        return self._job(p, None, decay, self._update(p, group), self._number(p, group), group, binding)

    def _update(self, p: torch.Tensor, group: dict[str, Any]) -> AdamDelta:
        """Δθ, once the moments are this step's."""
        state = self.state[p]
        m, v = local(state["exp_avg"]), local(state["exp_avg_sq"])
        return AdamDelta(m, v, int(state["step"]), float(group["lr"]), tuple(group["betas"]), group["eps"])

    def _largest(self, bound: list[tuple[torch.Tensor, Binding]], group: dict[str, Any]) -> list[Picked]:
        """The moments' update and the largest entries of each Δθ, in one pass over memory for large tensors."""
        large = {p for p, binding in bound if self._worth_sweeping(p, binding.shard)}
        self._online_moments([p for p, _ in bound if p not in large], group, True)
        picked = []
        for p, binding in bound:
            k = kept_count(group["density"], binding.shard.numel)
            found = self._swept(p, binding.shard, group) if p in large else None
            picked.append(Picked(*top_k(self._update(p, group), binding.shard, k, found)))
        return picked

    def _worth_sweeping(self, p: torch.Tensor, shard: Shard) -> bool:
        # by the whole tensor's size: the ranks exchange counts, and all of them must do so
        return shard.numel >= SWEPT and p.device.type == "cpu" and p.dtype != torch.float64

    def _swept(self, p: torch.Tensor, shard: Shard, group: dict[str, Any]) -> Found:
        """The moments' update, and the entries above a bound that a sample of the moments to come gives.

        Returns:
            (local flat indices, values) of entries beyond the bound, with near certainty the k largest among them.
        """
        grad, m, v, _ = self._flat(p)
        betas, delta = tuple(group["betas"]), self._update(p, group)
        sample = delta.sample_ahead(grad, betas, 14, 64) if shard.held else np.empty(0, np.float32)
        low = low_bracket(sample, shard, kept_count(group["density"], shard.numel))
        square = delta.square_bound(low)
        if square is None:
            self._online_moments([p], group, True)
            return delta.above(low)
        tensors, parts = (beta_tensor(betas), torch.tensor(square)), []
        for start, stop in spans(m.numel(), SPAN):
            flags = padded_flags(stop - start)
            part, here = slice(start, stop), torch.from_numpy(flags)[: stop - start]
            compiled(moments_above_)(grad[part], m[part], v[part], *tensors, here)
            parts.append(delta.among(where_set(flags) + start, low))
        return joined(parts)

    def _in_one_pass(self, p: torch.Tensor, binding: Binding, online: bool, group: dict[str, Any]) -> bool:
        """A dense merge by one kernel (OnTIES: two); False, and nothing done, where the tensor is none for it."""
        # OnTIES' thresholds of a sharded tensor are exchanged, which all ranks must do in one order
        if not self._for_kernel(p, binding) or (self.method == "ties" and binding.shard.groups):
            return False
        job = self._job_of(p, binding, online, group)
        merge, tau = job.merge, job.tau
        scale = rescale_factor(merge.rescale, merge.density)
        settings = {"scales": (scale, scale), "alpha": merge.alpha, "clip": merge.clip, "stochastic": merge.stochastic}
        settings |= {"keys": tuple(job.key(role) for role in (UPDATE, REFERENCE, ROUNDING)), "decay": job.decay}
        if self.method == "dare":
            settings["density"] = merge.density
        else:
            settings["elect"] = merge.elect
            if merge.density < 1.0:
                of_tau = KEEP_ALL if tau is None else bound_of(tau, REFERENCE, merge, binding)
                of_delta = self._bound(p, job, group) if online else bound_of(job.delta, UPDATE, merge, binding)
                settings |= {"bounds": (of_delta, of_tau), "moments": False}
        self._run_kernel(p, tau, binding, online, group, **settings)
        return True

    def _bound(self, p: torch.Tensor, job: Job, group: dict[str, Any]) -> Threshold:
        """The moments' update, and what keeps the largest entries of Δθ.

        The pass that updates the moments finds the entries between two magnitudes, which a sample of the moments to come
        gives, and counts those beyond; the threshold is among the former.
        """
        grad, m, v, _ = self._flat(p)
        betas, delta, k = tuple(group["betas"]), job.delta, kept_count(job.merge.density, m.numel())
        if m.numel() < SWEPT or p.device.type != "cpu":
            self._online_moments([p], group, True)
            return bound_of(delta, UPDATE, job.merge, job.binding)
        low, high = bracket(delta.sample_ahead(grad, betas, 13, 256), k / m.numel())
        tensors = beta_tensor(betas), torch.tensor([delta.scale, delta.floor]), torch.tensor([low, high])
        beyond, parts = 0, []
        for start, stop in spans(m.numel(), SPAN):
            flags = padded_flags(stop - start)
            part, here = slice(start, stop), torch.from_numpy(flags)[: stop - start]
            beyond += int(compiled(moments_between_)(grad[part], m[part], v[part], *tensors, here))
            index = where_set(flags) + start
            parts.append((index, delta.take(torch.from_numpy(index)).numpy()))
        return threshold_between(*joined(parts), k - beyond) or bound_of(delta, UPDATE, job.merge, job.binding)

    def _for_kernel(self, p: torch.Tensor, binding: Binding) -> bool:
        return p.dtype in (torch.float32, torch.bfloat16) and binding.shard.in_one_run and local(p).numel() > 1

    def _run_kernel(
        self, p: torch.Tensor, tau: Delta | None, binding: Binding, online: bool, group: dict[str, Any], **settings: Any
    ) -> None:
        """`merged_step_` over the parameter, or `merged_since_` where AdamW has made its steps already."""
        theta, (grad, m, v, t) = local(p), self._flat(p)
        betas = tuple(group["betas"])
        update = scale_and_floor(float(group["lr"]), betas, group["eps"], int(t))
        numbers, streams, kind = constants(betas, update, start=binding.shard.first, **settings)
        numbers, streams = numbers.to(theta.device), streams.to(theta.device)
        kernel, read = (merged_step_, (grad, m, v)) if online else (merged_since_, (local(self.state[p]["anchor"]),))
        for start, stop in spans(theta.numel(), SPAN):
            part = slice(start, stop)
            operands = (None, None) if tau is None else tau.operands(start, stop)
            compiled(kernel)(theta[part], *(x[part] for x in read), *operands, numbers, streams, kind)
            streams[-1] += stop - start

    def _decay(self, theta: torch.Tensor, factor: float, group: dict[str, Any], step: int, binding: Binding) -> None:
        """θ ← (1 − η·λ)·θ, before the deltas are added, as torch's AdamW does."""
        if factor != 1.0:
            key = stream_key(group["seed"], step, "decay", binding.name) if group["rounding"] == "stochastic" else None
            scale_(theta, theta, factor, key, binding.shard)
