"""OnlineMerge: online merging around any torch optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mergetool.errors import RecipeError, nearest
from mergetool.methods import ONLINE
from mergetool.optim.base import Anyref, Merging, Method
from mergetool.optim.blockwise import merge_blocks
from mergetool.optim.entries import merge_entries
from mergetool.optim.job import Job
from mergetool.optim.names import NamedParameters
from mergetool.optim.road import by_entries
from mergetool.optim.sharding import local


class OnlineMerge(Merging):
    """Online merging around any torch optimizer: Δθ is what its step did to θ.

        θ' = base.step(θ);  θ ← θ + (1 − α)·F(θ' − θ) ⊕ α·F(τ_s)     at every K-th step, from the anchor for K > 1

    The wrapper shares the base optimizer's `param_groups` and `state`: schedulers, GradScaler and state_dict work on
    either. It needs one buffer of the parameter's type (during the step for K = 1, kept for K > 1). A weight decay of
    the base optimizer is part of its step, hence of Δθ; OnDARE and OnTIES keep theirs apart.

    Args:
        base_optimizer: built with named parameters, or give `names`.
        method: ``"dare"``, ``"ties"`` or ``"linear"``.
        density, alpha, alpha_total, total_steps, every, rescale, tau_mask, elect, clip, seed, rounding: as in OnDARE
            and OnTIES.
        reference: mapping of names to τ (θ_s for ``"linear"``), or a Reference.
        names: the model, or (name, parameter) pairs, where the base optimizer was built without names.

    Raises:
        RecipeError: settings that cannot be carried out. CheckpointError: a reference that does not fit.

    Source: [OMO] Lu et al. 2024, arXiv 2405.17931, §3.2: "not dependent on Adam".
    """

    def __init__(
        self,
        base_optimizer: torch.optim.Optimizer,
        *,
        method: Method = "dare",
        reference: Anyref = None,
        names: NamedParameters | None = None,
        **settings: Any,
    ) -> None:
        self.base_optimizer = base_optimizer
        if method in ONLINE and ONLINE[method].calibrated:
            raise RecipeError(f"OnlineMerge has no method '{method}'", f"use {ONLINE[method].optimizer}, which is around AdamW")
        if method not in ONLINE:
            raise RecipeError(f"OnlineMerge has no method '{method}'", nearest(method, ONLINE))
        known = ONLINE[method].settings
        self._defaults = known | settings
        if unknown := set(settings) - set(known):
            raise RecipeError(f"OnlineMerge has no setting '{min(unknown)}'", nearest(min(unknown), known))
        self._prepare(method, reference, names)
        super().__init__([{"params": [torch.zeros(1)]}], {})  # torch's hooks and bookkeeping; the groups are the base's
        self.defaults = base_optimizer.defaults | self._defaults
        self.param_groups = []
        for group in base_optimizer.param_groups:
            self._admit(self._completed(group))
            self.param_groups.append(group)
        if base_optimizer.state:
            self.state = base_optimizer.state
        self._share()

    def _completed(self, group: dict[str, Any]) -> dict[str, Any]:
        for key, value in self._defaults.items():
            group.setdefault(key, value)
        return group

    def _share(self) -> None:
        self.base_optimizer.param_groups = self.param_groups
        self.base_optimizer.state = self.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base optimizer, with this wrapper's settings."""
        if not hasattr(self, "param_groups") or not self.param_groups:
            super().add_param_group(param_group)
            return
        self._admit(self._completed(param_group))
        self.base_optimizer.add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"base_optimizer": self.base_optimizer, "_defaults": self._defaults}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """The base optimizer's step, merged with τ_s at every K-th.

        Args:
            closure: reevaluates the model and returns the loss; called once.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = self._moving()
        anchors: dict[torch.Tensor, torch.Tensor] = {}
        for _, _, held in moving:
            for _, p in held:
                if not self.operator.row.points and "anchor" not in self.state.get(p, {}):
                    anchors[p] = p.detach().clone()
        self.base_optimizer.step()
        for group, index, held in moving:
            due = [(i, p) for i, p in held if self._count_step(p, group, anchors)]
            jobs = []
            for i, p in due:
                number = int(self.state[p]["merge_step"]) // group["every"] - 1
                binding = self._look_up(self._binding(p, group, i, index), p, group)
                if self.operator.row.points:
                    theta = local(p)
                    self.operator.mix(theta, self._settings(group, number, binding, theta.dtype), binding)
                else:
                    origin = self.state[p]["anchor"] if "anchor" in self.state[p] else anchors[p]
                    jobs.append(self._job(local(p), local(origin), 1.0, None, number, group, binding))
            _merge(jobs)
            for _, p in due:
                if "anchor" in self.state[p]:
                    self.state[p]["anchor"].copy_(p)
            if due:
                self._count(group)
        return loss

    def _count_step(self, p: torch.Tensor, group: dict[str, Any], anchors: dict[torch.Tensor, torch.Tensor]) -> bool:
        """Count a parameter's step, and keep its anchor for Step-K; True where it is to be merged now."""
        state = self.state[p]  # only now: some optimizers take an empty state for a first step
        if "merge_step" not in state:
            state["merge_step"] = torch.zeros((), dtype=torch.float32)
        state["merge_step"] += 1
        if group["every"] > 1 and p in anchors:
            state["anchor"] = anchors[p]
        return self._merging_now(group, int(state["merge_step"]))


def _merge(jobs: list[Job]) -> None:
    if jobs and by_entries(jobs[0].merge.operator, jobs[0].merge.density):
        merge_entries(jobs)
        return
    for job in jobs:
        merge_blocks(job)
