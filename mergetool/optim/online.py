"""OnlineMerge: online merging around any torch optimizer."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from mergetool.errors import CheckpointError, RecipeError, nearest
from mergetool.methods import ONLINE
from mergetool.optim.base import Anyref, Merging, Method
from mergetool.optim.blockwise import merge_blocks
from mergetool.optim.entries import merge_entries
from mergetool.optim.job import Job
from mergetool.optim.names import NamedParameters
from mergetool.optim.namespace import PREFIX, OwnSettings, prefixed
from mergetool.optim.parts import entries, put_back
from mergetool.optim.road import by_entries
from mergetool.optim.settings import Group
from mergetool.optim.sharding import local
from mergetool.optim.wrapped_state import wrapped_state


class OnlineMerge(Merging):
    """Online merging around any torch optimizer: Δθ is what its step did to θ.

        θ' = base.step(θ);  θ ← θ + (1 − α)·F(θ' − θ) ⊕ α·F(τ_s)     at every K-th step, from the anchor for K > 1

    The wrapper shares the base optimizer's `param_groups` and `state`: schedulers, GradScaler and state_dict work on
    either. It needs one buffer of the parameter's type (during the step for K = 1, kept for K > 1). A weight decay of
    the base optimizer is part of its step, hence of Δθ; OnDARE and OnTIES keep theirs apart.

    In a group the settings here have the prefix ``online_merge_`` (``online_merge_density``, …), so that RMSprop keeps its own
    `alpha`; a group of the base optimizer with such a key has a setting of its own.

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
        self.defaults = base_optimizer.defaults | {PREFIX + key: value for key, value in self._defaults.items()}
        self.param_groups = []
        for group in base_optimizer.param_groups:
            _warn_of_bare_names(group, known, base_optimizer)
            self._check(self._completed(group), len(self.param_groups))
            self.param_groups.append(group)
        if base_optimizer.state:
            self.state = base_optimizer.state
        self._share()

    def _own(self, group: dict[str, Any]) -> Group:
        return OwnSettings(group, self._defaults)

    def _completed(self, group: dict[str, Any]) -> dict[str, Any]:
        own = self._own(group)
        for key, value in self._defaults.items():
            own.setdefault(key, value)
        return group

    def _share(self) -> None:
        self.base_optimizer.param_groups = self.param_groups
        self.base_optimizer.state = self.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base optimizer, with this wrapper's settings.

        Args:
            param_group: as torch has it; settings of the merge in it may leave out their prefix, where the base optimizer has
                none of the name.
        """
        if not hasattr(self, "param_groups") or not self.param_groups:
            super().add_param_group(param_group)
            return
        bare = set(self._defaults) - set(self.base_optimizer.defaults)
        self.base_optimizer.add_param_group({PREFIX + k if k in bare else k: v for k, v in param_group.items()})
        group = self.param_groups.pop()
        self._check(self._completed(group), len(self.param_groups))
        self.param_groups.append(group)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"base_optimizer": self.base_optimizer, "_defaults": self._defaults}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # of a pickle from before the prefix
            group.update(renamed := prefixed(group, self._defaults, self.base_optimizer.defaults))
            for key in set(group) - set(renamed):
                del group[key]
        self._share()

    def _mark(self) -> dict[str, str]:
        return super()._mark() | {"around": type(self.base_optimizer).__name__}

    def _saved_settings(self, saved: dict[str, Any]) -> dict[str, Any]:
        if "moments" in saved and "moments" not in self.base_optimizer.defaults:
            raise CheckpointError("the state is not OnlineMerge's", "load it into OnDARE, OnTIES or OnLinear, which saved it")
        saved = prefixed(saved, self._defaults, self.base_optimizer.defaults)
        return {PREFIX + "merges": 0, PREFIX + "merged_alpha": 0.0} | saved

    def _saved_state(self, state: dict[str, Any], parameter: torch.Tensor, group: dict[str, Any], name: str) -> dict[str, Any]:
        return wrapped_state(state, parameter, self.base_optimizer, group, name)

    def _same_method(self, mark: Mapping[str, Any], group: Group) -> None:
        super()._same_method(mark, group)
        here = type(self.base_optimizer).__name__
        if mark.get("around", here) != here:
            raise CheckpointError(
                f"the state was saved around {mark['around']}, and this is around {here}", "wrap the same optimizer"
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As `Merging.load_state_dict`; a state of the base optimizer alone is taken too, with no merges yet."""
        super().load_state_dict(state_dict)
        self.base_optimizer.__setstate__({"state": self.state, "param_groups": self.param_groups})
        self._share()

    def _last(self, state: Mapping[str, Any]) -> int:
        return int(state.get("merge_step", 0))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """The base optimizer's step, merged with τ_s at every K-th.

        Args:
            closure: reevaluates the model and returns the loss; called once, and then by a base optimizer that cannot step
                without it (LBFGS).
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving, step = self._moving(), self._next_step()
        anchors = {
            p: p.detach().clone(memory_format=torch.contiguous_format)
            for _, _, held in moving
            for _, p in held
            if not self.operator.row.points and "anchor" not in self.state.get(p, {})
        }
        if closure is not None and _needs_closure(self.base_optimizer):
            self.base_optimizer.step(closure)
        else:
            self.base_optimizer.step()
        for group, index, held in moving:
            own = self._own(group)
            for _, p in held:
                state = self.state[p]  # only now: some optimizers take an empty state for a first step
                count = step if own["every"] > 1 else self._last(state) + 1
                state["merge_step"] = torch.tensor(count, dtype=torch.float32)
                if own["every"] > 1 and p in anchors:
                    state["anchor"] = anchors[p]
            if self._merging_now(own, step):
                rest = self._resting(group, own["every"], step)
                rest = [(i, p) for i, p in rest if self.operator.row.points or "anchor" in self.state[p]]
                self._merge_group(own, index, held + rest, anchors, step)
        return loss

    def _merge_group(
        self,
        group: Group,
        index: int,
        due: list[tuple[int, torch.Tensor]],
        anchors: dict[torch.Tensor, torch.Tensor],
        step: int,
    ) -> None:
        """Merge parameters of a group, (position, parameter) each, at the optimizer's step `step`."""
        jobs, thetas = [], []
        for i, p in due:
            binding = self._look_up(self._binding(p, group, i, index), p, group)
            theta = entries(p, binding.name)
            number = (self._last(self.state[p]) if group["every"] == 1 else step // group["every"]) - 1
            thetas.append(theta)
            if self.operator.row.points:
                self.operator.mix(theta, self._settings(group, number, binding, theta.dtype), binding)
            else:
                origin = self.state[p]["anchor"] if "anchor" in self.state[p] else anchors[p]
                jobs.append(self._job(theta, local(origin), 1.0, None, number, group, binding))
        _merge(jobs)
        for theta, (_, p) in zip(thetas, due, strict=True):
            put_back(p, theta)
            if "anchor" in self.state[p]:
                local(self.state[p]["anchor"]).copy_(theta)
        if due:
            self._count(group, [p for _, p in due])


def _warn_of_bare_names(group: dict[str, Any], names: Mapping[str, Any], base: torch.optim.Optimizer) -> None:
    """Of keys that might have been meant for the merge, and are left to the optimizer."""
    for name in names:
        if name in group and name not in base.defaults and PREFIX + name not in group:
            warnings.warn(
                f"a group's {name!r} is left to {type(base).__name__}: {PREFIX + name!r} is the merge's", stacklevel=3
            )


def _needs_closure(base: torch.optim.Optimizer) -> bool:
    """Whether a step cannot be made without one, as LBFGS' cannot."""
    closure = inspect.signature(base.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _merge(jobs: list[Job]) -> None:
    if jobs and by_entries(jobs[0].merge.operator, jobs[0].merge.density):
        merge_entries(jobs)
        return
    for job in jobs:
        merge_blocks(job)
