"""AdamW whose every K-th step is merged: what OnDARE, OnTIES and OnLinear have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from mergetool.methods import ONLINE
from mergetool.ops.noise import stream_key
from mergetool.ops.rescale import rescale_factor
from mergetool.optim.adamw_state import adamw_settings, adamw_state, moment_type
from mergetool.optim.base import Anyref, Merging, Method
from mergetool.optim.blockwise import merge_blocks
from mergetool.optim.compiling import compiles
from mergetool.optim.deltas import Delta
from mergetool.optim.entries import merge_entries
from mergetool.optim.job import REFERENCE, ROUNDING, UPDATE, Job
from mergetool.optim.kernels import keep_all
from mergetool.optim.names import NamedParameters, attach
from mergetool.optim.parts import AdamPart, put_back
from mergetool.optim.passes import AHEAD, UpdateAhead, step_in_one_pass, update_moments
from mergetool.optim.road import OwnStep, Road, own_step, road
from mergetool.optim.rounded import COARSE, rounded_sum, scale_
from mergetool.optim.settings import check_adamw
from mergetool.optim.step import adamw_, adamw_moments_, adamw_rounded_

Params = Any


class MergingAdamW(Merging):
    """AdamW whose every K-th step is merged; the three public classes differ in `method` and defaults alone."""

    def __init__(self, method: Method, params: Params, reference: Anyref, names: NamedParameters | None, **given: Any) -> None:
        self._prepare(method, reference, names)
        super().__init__(params, ONLINE[method].settings | given)

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
        self._check(group, len(self.param_groups))
        self.param_groups.append(group)

    def _check(self, group: dict[str, Any], index: int) -> None:
        check_adamw(group)
        for setting in self.operator.row.later:
            if group.get(setting.name) == setting.default:
                del group[setting.name]
        super()._check(group, index)

    def _saved_settings(self, saved: dict[str, Any]) -> dict[str, Any]:
        later = {setting.name: setting.default for setting in self.operator.row.later}
        return later | adamw_settings(saved) if "moments" in saved else adamw_settings(saved)

    def _saved_state(self, state: dict[str, Any], parameter: torch.Tensor, group: dict[str, Any], name: str) -> dict[str, Any]:
        return adamw_state(state, parameter, group["moments"], name)

    def _last(self, state: Mapping[str, Any]) -> int:
        return int(state.get("merge_step", state.get("step", 0)))

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
        moving, step = self._moving(), self._next_step()
        for group, index, held in moving:
            parts = [self._part(p, group, i, index, step) for i, p in held]
            rest = []
            if self._merging_now(group, step):
                rest = [(i, p) for i, p in self._resting(group, group["every"], step) if self._mergeable(p, group)]
            resting = [AdamPart.of(p, self.state[p], group, self._binding(p, group, i, index)) for i, p in rest]
            self._step_group(group, parts, resting, step)
            for part in (*parts, *resting):
                put_back(part.parameter, part.theta)
        return loss

    def _mergeable(self, p: torch.Tensor, group: dict[str, Any]) -> bool:
        return "anchor" in self.state[p] or self.operator.is_the_step(group)

    def _part(self, p: torch.Tensor, group: dict[str, Any], position: int, index: int, step: int) -> AdamPart:
        """A parameter's part of the optimizer's step `step`, which is counted."""
        state = self.state[p]
        if not state:
            dtype = moment_type(p.dtype, group["moments"])
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(p, dtype=dtype, memory_format=torch.contiguous_format)
            state["exp_avg_sq"] = torch.zeros_like(p, dtype=dtype, memory_format=torch.contiguous_format)
        if group["every"] > 1 and "anchor" not in state and not self.operator.is_the_step(group):
            state["anchor"] = p.detach().clone(memory_format=torch.contiguous_format)
            if group["weight_decay"]:
                state["anchor_decay"] = torch.ones((), dtype=torch.float64)
        state["step"] += 1
        if group["every"] > 1 and ("merge_step" in state or int(state["step"]) != step):  # its own count is another
            state["merge_step"] = torch.tensor(step, dtype=torch.float32)
        return AdamPart.of(p, state, group, self._binding(p, group, position, index))

    def _step_group(self, group: dict[str, Any], parts: Sequence[AdamPart], rest: Sequence[AdamPart], step: int) -> None:
        """The group's step: each tensor on its road.

        Args:
            group: its settings.
            parts: of the parameters that have a gradient.
            rest: of those that have none now, and are merged.
            step: the optimizer's, from 1.
        """
        for part in parts:
            self.operator.before_step(part)
        now = self._merging_now(group, step)
        merging = [part.parameter for part in (*parts, *rest)] if now else []
        fast = bool(merging) and not self.operator.is_the_step(group) and compiles(group["compile"], merging)
        on: dict[Road, list[AdamPart]] = {way: [] for way in Road}
        for part in (*parts, *rest):
            on[road(self.operator, group, part, due=now, compiles=fast)].append(part)

        self._own_steps(group, parts if group["every"] > 1 else on[Road.PLAIN] + on[Road.TOWARD])
        if on[Road.MOMENTS]:
            update_moments(on[Road.MOMENTS], compiles(group["compile"], [part.parameter for part in on[Road.MOMENTS]]))
        if not merging:
            return
        self._count(group, merging)
        for part in on[Road.TOWARD]:
            binding = self._look_up(part.binding, part.parameter, group)
            self.operator.mix(part.theta, self._settings(group, _number(part, step), binding, part.theta.dtype), binding)
        for part in on[Road.ONE_PASS]:
            self._merge_in_one_pass(part, step)
        if on[Road.ENTRIES]:
            self._merge_entries(on[Road.ENTRIES], fast, step)
        if on[Road.BLOCKS]:
            self._merge_blocks(on[Road.BLOCKS], fast, step)
        for part in on[Road.ENTRIES] + on[Road.BLOCKS] + on[Road.ONE_PASS]:
            if "anchor_decay" in part.state:
                part.state["anchor_decay"].fill_(1.0)

    # --- AdamW's own step ---------------------------------------------------------------------------------------------

    def _own_steps(self, group: dict[str, Any], parts: Sequence[AdamPart]) -> None:
        """AdamW's step as torch makes it; in fp32 the very kernel and the very bits."""
        coarse = any(part.theta.dtype in COARSE for part in parts)
        fast = coarse and compiles(group["compile"], [part.parameter for part in parts])
        batches: dict[Any, list[AdamPart]] = {}
        for part in parts:
            if not part.theta.numel():
                continue
            if "anchor_decay" in part.state:
                part.state["anchor_decay"] *= part.decay
            way = own_step(group, part, compiles=fast)
            if way is OwnStep.FUSED:
                batches.setdefault((part.theta.dtype, part.theta.device), []).append(part)
            elif way is OwnStep.MOMENTS:
                adamw_moments_([part.grad], [part.m], [part.v], [part.t], betas=part.betas, eps=group["eps"])
            else:
                self._rounded_step(part, compiled=way is OwnStep.ONE_PASS)
        for batch in batches.values():
            columns = zip(*[(part.theta, part.grad, part.m, part.v, part.t) for part in batch], strict=True)
            first = batch[0]
            adamw_(*columns, lr=first.lr, weight_decay=group["weight_decay"], betas=first.betas, eps=group["eps"])

    def _rounded_step(self, part: AdamPart, *, compiled: bool) -> None:
        """AdamW's step on a parameter whose type is too coarse for its updates."""
        group, shard = part.group, part.binding.shard
        key, stochastic = _stream(part, "step"), group["rounding"] == "stochastic"
        if compiled:
            plain = {"keep": keep_all, "combine": _the_update, "keys": (0, 0, key)}
            step_in_one_pass(part, None, None, decay=part.decay, stochastic=stochastic, **plain)
            return

        def add(x: torch.Tensor, d: torch.Tensor, start: int) -> torch.Tensor:
            return rounded_sum(x, d, key, shard, start) if stochastic else x.float().add_(d).to(x.dtype)

        adamw_rounded_(
            part.theta, part.grad, part.m, part.v, part.t, add,
            lr=part.lr, weight_decay=group["weight_decay"], betas=part.betas, eps=group["eps"],
        )  # fmt: skip

    # --- merges -------------------------------------------------------------------------------------------------------

    def _merge_in_one_pass(self, part: AdamPart, step: int) -> None:
        """A dense merge by one kernel (OnTIES: two)."""
        online, job = part.group["every"] == 1, self._job_of(part, step)
        merge = job.merge
        scale = rescale_factor(merge.rescale, merge.density)
        how = {"scales": (scale, scale), "alpha": merge.alpha, "clip": merge.clip, "stochastic": merge.stochastic}
        how |= {"keys": tuple(job.key(role) for role in (UPDATE, REFERENCE, ROUNDING)), "decay": job.decay}
        how |= self.operator.in_kernel(job, part if online else None)
        step_in_one_pass(part, job.tau, None if online else part.anchor, **how)

    def _merge_entries(self, parts: Sequence[AdamPart], fast: bool, step: int) -> None:
        online, updates = parts[0].group["every"] == 1, None
        if online:
            updates = self.operator.pick_ahead(parts) if fast else None
            if updates is None:
                update_moments(parts, fast)
            for part in parts:  # what is not kept decays too
                if part.decay != 1.0:
                    key = _stream(part, "decay") if part.group["rounding"] == "stochastic" else None
                    scale_(part.theta, part.theta, part.decay, key, part.binding.shard)
        merge_entries([self._job_of(part, step, decayed=online) for part in parts], updates)
        self._set_anchors(parts)

    def _merge_blocks(self, parts: Sequence[AdamPart], fast: bool, step: int) -> None:
        ahead = {id(part) for part in parts if self._ahead(part, fast)}
        if parts[0].group["every"] == 1:
            update_moments([part for part in parts if id(part) not in ahead], fast)
        for part in parts:
            merge_blocks(self._job_of(part, step, delta=UpdateAhead(part) if id(part) in ahead else None))
        self._set_anchors(parts)

    def _ahead(self, part: AdamPart, fast: bool) -> bool:
        """Whether the moments of a part are updated as its Δθ is read."""
        if not fast or part.group["every"] != 1 or part.m.numel() < AHEAD or part.m.dtype == torch.float64:
            return False
        self._look_up(part.binding, part.parameter, part.group)
        return self.operator.reads_once(part)

    def _set_anchors(self, parts: Sequence[AdamPart]) -> None:
        for part in parts:
            if part.group["every"] > 1:
                part.anchor.copy_(part.theta)

    def _job_of(self, part: AdamPart, step: int, *, decayed: bool = False, delta: Delta | None = None) -> Job:
        """The merge of a part: of Adam's step at K = 1 (`delta`, else from its moments), else of what the anchor has gained."""
        binding, number = self._look_up(part.binding, part.parameter, part.group), _number(part, step)
        if part.group["every"] == 1:
            delta = part.update if delta is None else delta
            return self._job(part.theta, None, 1.0 if decayed else part.decay, delta, number, part.group, binding)
        decay = float(part.state.get("anchor_decay", 1.0))
        return self._job(part.theta, part.anchor, decay, None, number, part.group, binding)


def _number(part: AdamPart, step: int) -> int:
    """Of this merge, from 0: at K = 1 of the parameter's own, which it makes with each of its gradients."""
    every = part.group["every"]
    return (int(part.t) if every == 1 else step // every) - 1


def _stream(part: AdamPart, role: str) -> int:
    """The random stream of one step, whatever merge it belongs to."""
    return stream_key(part.group["seed"], int(part.t), role, part.binding.name)


def _the_update(
    delta: torch.Tensor, tau: torch.Tensor | None, weight_delta: torch.Tensor, weight_tau: torch.Tensor
) -> torch.Tensor:
    """Δθ alone: for a kernel that makes AdamW's own step."""
    return delta * weight_delta
