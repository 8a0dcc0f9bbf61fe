"""What all online-merging optimizers share: names, references, how much was merged, and their state's round trip.

Step-K keeps an anchor, the parameter as it was after the last merge, and not the sum of updates Δ_c that [OMO]
Algorithm 2 writes: Δ_c = θ − anchor takes the same memory (less in bf16), rolling back is a copy and so exact, and the
deltas that are merged are then the ones that an offline merge reads from two checkpoints, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch

from mergetool.errors import RecipeError
from mergetool.optim.deltas import Delta, since
from mergetool.optim.job import Job, Merge, Operator
from mergetool.optim.names import NO_NAMES, NamedParameters, attach, name_of, named
from mergetool.optim.operators import operator
from mergetool.optim.parts import Binding
from mergetool.optim.reference import Reference
from mergetool.optim.rounded import COARSE
from mergetool.optim.settings import check, resolve_alpha
from mergetool.optim.sharding import local, shard_of

Method = Literal["dare", "ties", "linear", "null_space"]
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

    @property
    def operator(self) -> Operator:
        """What the method does."""
        return operator(self.method)

    def _prepare(self, method: Method, reference: Anyref, names: NamedParameters | None) -> None:
        """Called before groups are added."""
        self.method = method
        if reference is not None and not isinstance(reference, Reference):
            reference = Reference(reference)
        self.reference = reference.points() if reference is not None and self.operator.row.points else reference
        self._names = {} if names is None else named(names)
        self._bindings: dict[torch.Tensor, Binding] = {}

    def _admit(self, group: dict[str, Any]) -> None:
        """Check a group's settings and names, and that the reference fits its parameters."""
        resolve_alpha(group)
        check(self.operator.row, group)
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
        return found

    def _look_up(self, binding: Binding, parameter: torch.Tensor, group: dict[str, Any]) -> Binding:
        """The same binding with its τ_s (or θ_s), read where it is merged for the first time."""
        if self.reference is not None and group["alpha"] and not binding.looked_up:
            self.reference.check([(binding.name, binding.shard.shape)])
            binding.tau = self.reference.delta(binding.name, binding.shard, local(parameter).device)
            binding.looked_up = True
        return binding

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
        return Merge(
            self.operator, group["density"], group["alpha"], group["rescale"], group["tau_mask"], group["elect"],
            group["clip"], group["seed"], number,
            # in fp32 only the reference is below what θ can hold: Adam's own updates are rounded as torch does
            stochastic=group["rounding"] == "stochastic" and (dtype in COARSE or (alters and dtype == torch.float32)),
        )  # fmt: skip

    def _job(
        self, theta: torch.Tensor, origin: torch.Tensor | None, decay: float, delta: Delta | None, number: int,
        group: dict[str, Any], binding: Binding,
    ) -> Job:  # fmt: skip
        """θ ← decay·origin + F(Δ) ⊕ F(τ_s).

        Args:
            theta: flat.
            origin: the anchor, flat; None for θ itself.
            delta: Δ; None to take θ − decay·origin, where there is an anchor.
        """
        settings = self._settings(group, number, binding, theta.dtype)
        if delta is None:
            assert origin is not None
            delta = since(theta, origin, decay)
        return Job(theta, theta if origin is None else origin, decay, delta, settings, binding)

    def _count(self, group: dict[str, Any]) -> None:
        """One more merge."""
        group["merges"] += 1
        group["merged_alpha"] += group["alpha"]

    @property
    def merged(self) -> MergedAmount:
        """How much of τ_s has been merged so far (the first group's account where groups differ)."""
        group = self.param_groups[0]
        return MergedAmount(group["merges"], group["merged_alpha"], group["merged_alpha"] * self.operator.share(group))

    def planned(self, total_steps: int) -> MergedAmount:
        """How much of τ_s a run of `total_steps` steps will have merged: M·α·c with M = ⌊T/K⌋."""
        group = self.param_groups[0]
        merges = total_steps // group["every"]
        return MergedAmount(merges, merges * group["alpha"], merges * group["alpha"] * self.operator.share(group))

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
