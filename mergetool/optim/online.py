"""The loop that all online-merging optimizers share, and OnlineMerge, which puts it around any torch optimizer.

Step-K keeps an anchor, the parameter as it was after the last merge, and not the sum of updates Δ_c that [OMO]
Algorithm 2 writes: Δ_c = θ − anchor takes the same memory (less in bf16), rolling back is a copy and so exact, and the
deltas that are merged are then the ones that an offline merge reads from two checkpoints, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch

from mergetool.errors import RecipeError, nearest
from mergetool.ops.blocks import spans
from mergetool.ops.consensus import lerp
from mergetool.optim.deltas import Delta, block_size, since
from mergetool.optim.merging import ROUNDING, Binding, Job, Merge, merge_, rounded_sum
from mergetool.optim.names import NO_NAMES, NamedParameters, attach, name_of, named
from mergetool.optim.reference import Reference
from mergetool.optim.settings import DEFAULTS, check, resolve_alpha
from mergetool.optim.sharding import local, shard_of

Method = Literal["dare", "ties", "linear"]
Anyref = Reference | Mapping[str, torch.Tensor] | None


class MergedAmount(NamedTuple):
    """How much of τ_s has been merged: `merges` merges, `alpha` = Σ α over them, `share` = Σ α·c.

    c is what sparsifying leaves of τ_s in expectation: 1 for ``unbiased`` and ``l1`` (in the L1 norm), the density
    for ``none``; for OnTIES the share is an upper bound, reached by the entries that are kept.
    """

    merges: int
    alpha: float
    share: float


class Merging(torch.optim.Optimizer):
    """What the optimizers here have in common: names, references, the merge itself and their state's round trip."""

    method: Method

    def _prepare(self, method: Method, reference: Anyref, names: NamedParameters | None) -> None:
        """Called before groups are added."""
        self.method = method
        if reference is not None and not isinstance(reference, Reference):
            reference = Reference(reference)
        self.reference = reference.points() if reference is not None and method == "linear" else reference
        self._names = {} if names is None else named(names)
        self._bindings: dict[torch.Tensor, Binding] = {}

    def _admit(self, group: dict[str, Any]) -> None:
        """Check a group's settings and names, and that the reference fits its parameters."""
        resolve_alpha(group)
        check(self.method, group)
        group.setdefault("merged_alpha", 0.0)
        group.setdefault("merges", 0)
        if self._names:
            attach(group, self._names)
        if self.reference is None:
            if group["alpha"]:
                raise RecipeError(
                    f"alpha is {group['alpha']} and there is no reference to merge",
                    "give reference=Reference.from_checkpoints(base, sft), or alpha=0 for gradient dropout alone",
                )
            return
        if "param_names" not in group:
            raise RecipeError("the parameters have no names, and a reference is looked up by name", NO_NAMES)
        flattened = [p for p in group["params"] if getattr(p, "ds_id", None) is not None and not p.numel()]
        if flattened:
            raise RecipeError("the parameters are DeepSpeed ZeRO-3 partitions, without shapes of their own", NO_NAMES)
        index = len(self.param_groups)
        self.reference.check(
            (name_of(group, i, index), tuple(p.shape)) for i, p in enumerate(group["params"]) if p.requires_grad
        )

    def _binding(self, parameter: torch.Tensor, group: dict[str, Any], position: int, index: int) -> Binding:
        found = self._bindings.get(parameter)
        if found is None:
            found = self._bindings[parameter] = Binding(name_of(group, position, index), shard_of(parameter))
        if self.reference is not None and group["alpha"] and not found.looked_up:
            self.reference.check([(found.name, found.shard.shape)])
            found.tau = self.reference.delta(found.name, found.shard, local(parameter).device)
            found.looked_up = True
        return found

    def _moving(self) -> list[tuple[dict[str, Any], int, list[tuple[int, torch.Tensor]]]]:
        """(group, its index, [(position, parameter)]) of the parameters that have a gradient.

        Raises:
            RecipeError: a gradient is sparse, a parameter complex, or a backend has flattened the group.
        """
        moving = []
        for index, group in enumerate(self.param_groups):
            if len(group.get("param_names", group["params"])) != len(group["params"]):
                raise RecipeError("a group's parameters were replaced by flattened ones, without names", NO_NAMES)
            held = [(i, p) for i, p in enumerate(group["params"]) if p.grad is not None]
            for i, p in held:
                if p.grad.is_sparse or torch.is_complex(p):
                    kind = "a sparse gradient" if p.grad.is_sparse else "complex entries"
                    raise RecipeError(
                        f"parameter {name_of(group, i, index)} has {kind}",
                        "online merging takes dense real ones: make the embedding with sparse=False",
                    )
            moving.append((group, index, held))
        return moving

    def _settings(self, group: dict[str, Any], number: int, binding: Binding, dtype: torch.dtype) -> Merge:
        alters = bool(group["alpha"]) and binding.tau is not None
        coarse = dtype in (torch.bfloat16, torch.float16)
        return Merge(
            self.method, group["density"], group["alpha"], group["rescale"], group["tau_mask"], group["elect"],
            group["clip"], group["seed"], number,
            # in fp32 only the reference is below what θ can hold: Adam's own updates are rounded as torch does
            stochastic=group["rounding"] == "stochastic" and (coarse or (alters and dtype == torch.float32)),
        )  # fmt: skip

    def _job(
        self,
        parameter: torch.Tensor,
        origin: torch.Tensor | None,
        decay: float,
        delta: Delta | None,
        number: int,
        group: dict[str, Any],
        binding: Binding,
    ) -> Job:
        """θ ← decay·origin + F(Δ) ⊕ F(τ_s).

        Args:
            origin: the anchor, flat; None for θ itself.
            delta: Δ; None to take θ − decay·origin.
        """
        theta = local(parameter)
        settings = self._settings(group, number, binding, theta.dtype)
        if delta is None:
            delta = since(theta, origin, decay)
        return Job(theta, theta if origin is None else origin, decay, delta, settings, binding)

    def _interpolate(self, parameter: torch.Tensor, number: int, group: dict[str, Any], binding: Binding) -> None:
        """OnLinear: θ ← (1 − α)·θ + α·θ_s, θ having made its step already."""
        theta = local(parameter)
        if binding.tau is not None and group["alpha"]:
            _interpolate(theta, self._settings(group, number, binding, theta.dtype), binding)

    @property
    def merged(self) -> MergedAmount:
        """How much of τ_s has been merged so far (the first group's account where groups differ)."""
        group = self.param_groups[0]
        share = group["density"] if group["rescale"] == "none" and self.method == "dare" else 1.0
        return MergedAmount(group["merges"], group["merged_alpha"], group["merged_alpha"] * share)

    def planned(self, total_steps: int) -> MergedAmount:
        """How much of τ_s a run of `total_steps` steps will have merged: M·α·c with M = ⌊T/K⌋."""
        group = self.param_groups[0]
        share = group["density"] if group["rescale"] == "none" and self.method == "dare" else 1.0
        merges = total_steps // group["every"]
        return MergedAmount(merges, merges * group["alpha"], merges * group["alpha"] * share)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch does, but every tensor keeps the type it was saved in (torch casts state to the parameter's)."""
        super().load_state_dict(state_dict)
        ids = [i for group in state_dict["param_groups"] for i in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for i, parameter in zip(ids, parameters, strict=True):
            for key, value in state_dict["state"].get(i, {}).items():
                loaded = self.state[parameter].get(key)
                if isinstance(value, torch.Tensor) and key in ("step", "merge_step", "anchor_decay"):
                    self.state[parameter][key] = value.detach().clone().cpu()
                elif isinstance(value, torch.Tensor) and loaded.dtype != value.dtype:
                    self.state[parameter][key] = value.detach().to(loaded.device, copy=True)
        self._bindings = {}

    def __getstate__(self) -> dict[str, Any]:
        # torch's own leaves out everything but state, groups and defaults
        own = {"method": self.method, "reference": self.reference}
        return super().__getstate__() | own

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._names = {}
        self._bindings = {}

    def _merging_now(self, group: dict[str, Any], step: int) -> bool:
        """True at every K-th step; a step at lr 0 changes nothing (torch makes such steps to create state)."""
        return step % group["every"] == 0 and float(group["lr"]) != 0.0


def _interpolate(theta: torch.Tensor, settings: Merge, binding: Binding) -> None:
    shard, key = binding.shard, settings.key(ROUNDING, binding.name)
    for start, stop in spans(theta.numel(), block_size(theta.device)):
        here, there = theta[start:stop], binding.tau.block(start, stop)
        if settings.stochastic and settings.alpha != 1.0:
            toward = there.sub(here.float()).mul_(settings.alpha)
            theta[start:stop] = rounded_sum(here, toward, key, shard, start)
        else:
            theta[start:stop] = lerp(here.float(), there, settings.alpha).to(theta.dtype)


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
        self._defaults = DEFAULTS[method] | settings
        unknown = set(settings) - set(DEFAULTS[method])
        if unknown:
            raise RecipeError(f"OnlineMerge has no setting '{min(unknown)}'", nearest(min(unknown), DEFAULTS[method]))
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
                if self.method != "linear" and "anchor" not in self.state.get(p, {}):
                    anchors[p] = p.detach().clone()
        self.base_optimizer.step()
        for group, index, held in moving:
            merged, jobs = [], []
            for i, p in held:
                state = self.state[p]  # only now: some optimizers take an empty state for a first step
                if "merge_step" not in state:
                    state["merge_step"] = torch.zeros((), dtype=torch.float32)
                state["merge_step"] += 1
                if group["every"] > 1 and p in anchors:
                    state["anchor"] = anchors[p]
                step = int(state["merge_step"])
                if self._merging_now(group, step):
                    kept = state.get("anchor", anchors.get(p))
                    origin = None if kept is None else local(kept)
                    number, binding = step // group["every"] - 1, self._binding(p, group, i, index)
                    if self.method == "linear":
                        self._interpolate(p, number, group, binding)
                    else:
                        jobs.append(self._job(p, origin, 1.0, None, number, group, binding))
                    merged.append(p)
            merge_(jobs)
            for p in merged:
                if "anchor" in self.state[p]:
                    self.state[p]["anchor"].copy_(p)
            if merged:
                group["merges"] += 1
                group["merged_alpha"] += group["alpha"]
        return loss
