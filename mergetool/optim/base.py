"""What all online-merging optimizers share: names, references, how much was merged, and their state's round trip.

Step-K keeps an anchor, the parameter as it was after the last merge, and not the sum of updates Δ_c that [OMO]
Algorithm 2 writes: Δ_c = θ − anchor takes the same memory (less in bf16), rolling back is a copy and so exact, and the
deltas that are merged are then the ones that an offline merge reads from two checkpoints, bit for bit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch

from mergetool.errors import CheckpointError, MergetoolError, RecipeError
from mergetool.methods import ONLINE
from mergetool.optim.deltas import Delta, since
from mergetool.optim.job import Job, Merge, Operator
from mergetool.optim.loading import OURS, number_of, saved_groups
from mergetool.optim.names import NO_NAMES, NamedParameters, attach, name_of, named
from mergetool.optim.operators import operator
from mergetool.optim.parts import Binding
from mergetool.optim.reference import Reference
from mergetool.optim.rounded import COARSE
from mergetool.optim.settings import Group, check, resolve_alpha
from mergetool.optim.sharding import shard_of

Method = Literal["dare", "ties", "linear", "null_space"]
Anyref = Reference | Mapping[str, torch.Tensor] | None


class MergedAmount(NamedTuple):
    """How much of τ_s has been merged: `merges` merges, `alpha` = Σ α over them, `share` = Σ α·c.

    Both sums are means over the entries that are trained: one that was not merged, for it had no gradient, counts with 0.
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

    def _own(self, group: dict[str, Any]) -> Group:
        """The group as merging reads it."""
        return group

    def _check(self, group: dict[str, Any], index: int) -> None:
        """Check a new group, or a loaded one, that is the optimizer's number `index`."""
        self._admit(self._own(group), index)

    def _admit(self, group: Group, index: int) -> None:
        """Check a group's settings and names, and that the reference fits its parameters."""
        resolve_alpha(group)
        check(self.operator.row, group)
        group.setdefault("merged_alpha", 0.0)
        group.setdefault("merges", 0)
        if self._names:
            attach(group, self._names)
        for i, p in enumerate(group["params"]):
            if p.requires_grad and torch.is_complex(p):
                raise _complex(name_of(group, i, index))
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
        self.reference.check(
            (name_of(group, i, index), tuple(p.shape)) for i, p in enumerate(group["params"]) if p.requires_grad
        )

    def _binding(self, parameter: torch.Tensor, group: Group, position: int, index: int) -> Binding:
        found = self._bindings.get(parameter)
        if found is None:
            found = self._bindings[parameter] = Binding(name_of(group, position, index), shard_of(parameter))
        return found

    def _look_up(self, binding: Binding, parameter: torch.Tensor, group: Group) -> Binding:
        """The same binding with its τ_s (or θ_s), read where it is merged for the first time."""
        if self.reference is not None and group["alpha"] and not binding.looked_up:
            self.reference.check([(binding.name, binding.shard.shape)])
            binding.tau = self.reference.delta(binding.name, binding.shard, parameter.device)
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
                if torch.is_complex(p):
                    raise _complex(name_of(group, i, index))
                if p.grad.layout != torch.strided:
                    raise RecipeError(
                        f"parameter {name_of(group, i, index)} has a sparse gradient",
                        "online merging takes dense ones: make the embedding with sparse=False",
                    )
            moving.append((group, index, held))
        return moving

    def _settings(self, group: Group, number: int, binding: Binding, dtype: torch.dtype) -> Merge:
        alters = bool(group["alpha"]) and binding.tau is not None
        return Merge(
            self.operator, group["density"], group["alpha"], group["rescale"], group["tau_mask"], group["elect"],
            group["clip"], group["seed"], number,
            # in fp32 only the reference is below what θ can hold: Adam's own updates are rounded as torch does
            stochastic=group["rounding"] == "stochastic" and (dtype in COARSE or (alters and dtype == torch.float32)),
        )  # fmt: skip

    def _job(
        self, theta: torch.Tensor, origin: torch.Tensor | None, decay: float, delta: Delta | None, number: int,
        group: Group, binding: Binding,
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

    def _last(self, state: Mapping[str, Any]) -> int:
        """The step of the optimizer in which a parameter had its last gradient, from 1; 0 where it has had none."""
        raise NotImplementedError

    def _next_step(self) -> int:
        """The number of the step that begins, from 1, of the steps in which a parameter has had a gradient.

        K counts these and not a parameter's own: one that has no gradient in some of them is merged with the others.
        """
        states = (self.state[p] for group in self.param_groups for p in group["params"] if p in self.state)
        return 1 + max(map(self._last, states), default=0)

    def _resting(self, group: dict[str, Any], every: int, step: int) -> list[tuple[int, torch.Tensor]]:
        """(position, parameter) of those that have no gradient now, and have had one since the last merge before `step`."""
        if every == 1:
            return []
        rest = [(i, p) for i, p in enumerate(group["params"]) if p.grad is None and p in self.state]
        return [(i, p) for i, p in rest if self._last(self.state[p]) > step - every]

    def _count(self, group: Group, merged: Iterable[torch.Tensor]) -> None:
        """One more merge, of the parameters `merged`."""
        entries, trained = sum(p.numel() for p in merged), _entries(group)
        group["merges"] += 1
        group["merged_alpha"] += group["alpha"] if entries == trained else group["alpha"] * entries / max(trained, 1)

    @property
    def merged(self) -> MergedAmount:
        """How much of τ_s has been merged so far: the merges of the group with the most, and means over the trained entries."""
        return self._amount([(group, group["merges"], group["merged_alpha"]) for group in map(self._own, self.param_groups)])

    def planned(self, total_steps: int) -> MergedAmount:
        """How much of τ_s a run of `total_steps` steps will have merged: M·α·c with M = ⌊T/K⌋."""
        plans = [(group, total_steps // group["every"]) for group in map(self._own, self.param_groups)]
        return self._amount([(group, merges, merges * group["alpha"]) for group, merges in plans])

    def _amount(self, accounts: list[tuple[Group, int, float]]) -> MergedAmount:
        found = [(_entries(g), MergedAmount(m, a, a * self.operator.share(g))) for g, m, a in accounts]
        total, first = sum(entries for entries, _ in found), found[0][1]
        if not total or all(amount == first for _, amount in found):
            return first
        means = [sum(entries * amount[i] for entries, amount in found) / total for i in (1, 2)]
        return MergedAmount(max(amount.merges for _, amount in found), *means)

    # --- the state's round trip ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """As torch does; the method is with it as modules have their version, beside the keys."""
        found = OrderedDict(super().state_dict())
        vars(found)["_metadata"] = {"mergetool": self._mark()}
        return found

    def _mark(self) -> dict[str, str]:
        return {"method": self.method}

    def _saved_settings(self, saved: dict[str, Any]) -> dict[str, Any]:
        """A saved group's settings as this optimizer has them; CheckpointError where it cannot have them."""
        raise NotImplementedError

    def _saved_state(self, state: dict[str, Any], parameter: torch.Tensor, group: dict[str, Any], name: str) -> dict[str, Any]:
        """A parameter's saved state in the types and shapes that a step takes; CheckpointError where it is damaged."""
        raise NotImplementedError

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch does, but checked as new groups are, and every tensor keeps the type it was saved in.

        The same parameters in another order are put in order, by their names. The settings are the saved ones.

        Args:
            state_dict: this optimizer's, or that of the AdamW (OnlineMerge: of the optimizer) that it goes on from.

        Raises:
            CheckpointError: it is damaged, or of other parameters or another method. RecipeError: its settings cannot be
                carried out here, for want of a reference among others. In both cases nothing has changed.
        """
        mark = getattr(state_dict, "_metadata", None)
        mark = mark.get("mergetool") if isinstance(mark, Mapping) else None
        checked: dict[str, Any] = {}

        def check(_: torch.optim.Optimizer, given: dict[str, Any]) -> dict[str, Any]:
            checked.update(self._checked(given, mark if isinstance(mark, Mapping) else {}))
            return dict(checked)

        if not isinstance(state_dict, Mapping):
            saved_groups(state_dict, self.param_groups)
        last = self.register_load_state_dict_pre_hook(check)  # after the user's own, which may correct names
        try:
            super().load_state_dict(dict(state_dict))
        finally:
            last.remove()
        for i, parameter in enumerate(p for group in self.param_groups for p in group["params"]):
            for key, value in checked["state"].get(i, {}).items():
                loaded = self.state[parameter].get(key)
                if isinstance(value, torch.Tensor) and key in ("step", "merge_step", "anchor_decay"):
                    self.state[parameter][key] = value.detach().clone().cpu()
                elif isinstance(value, torch.Tensor) and loaded.dtype != value.dtype:
                    self.state[parameter][key] = value.detach().to(loaded.device, copy=True)
        self._bindings = {}

    def _checked(self, given: Any, mark: Mapping[str, Any]) -> dict[str, Any]:
        """A state_dict for this very optimizer, from one that was saved."""
        groups, states, at = [], {}, 0
        for index, (group, saved) in enumerate(zip(self.param_groups, saved_groups(given, self.param_groups), strict=True)):
            own = {"params": group["params"]}
            try:
                loaded = group | self._saved_settings(saved.settings) | own
                self._check(loaded, index)
                account = self._own(loaded)
                for key in ("merges", "merged_alpha"):
                    number_of(account[key], f"{key} of group {index}")
                for i, (p, state) in enumerate(zip(group["params"], saved.states, strict=True)):
                    states[at + i] = self._saved_state(state, p, loaded, name_of(loaded, i, index))
                self._same_method(mark, account)
            except MergetoolError:
                raise
            except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
                raise CheckpointError(f"group {index} of the state is damaged ({error})", OURS) from error
            count = len(group["params"])
            groups.append({**loaded, "params": list(range(at, at + count))})
            at += count
        beside = {key: value for key, value in given["state"].items() if isinstance(key, str) and not _is_id(key, given)}
        return {"state": {i: state for i, state in states.items() if state} | beside, "param_groups": groups}

    def _same_method(self, mark: Mapping[str, Any], group: Group) -> None:
        """Refuse another method's state, but where both are the optimizer's own step."""
        method = mark.get("method", self.method)
        plain = dict(group)
        if method == self.method or (
            method in ONLINE and not plain["alpha"] and all(op.is_the_step(plain) for op in (self.operator, operator(method)))
        ):
            return
        raise CheckpointError(f"the state was saved with method '{method}', and this is '{self.method}'", OURS)

    def __getstate__(self) -> dict[str, Any]:
        # torch's own leaves out everything but state, groups and defaults
        own = {"method": self.method, "reference": self.reference}
        return super().__getstate__() | own

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        vars(self).setdefault("_names", {})
        self._bindings = {}

    def _merging_now(self, group: Group, step: int) -> bool:
        """True at every K-th step; a step at lr 0 changes nothing (torch makes such steps to create state)."""
        rate = group.get("lr")
        return step % group["every"] == 0 and (rate is None or float(rate) != 0.0)


def _entries(group: Group) -> int:
    """Entries of a group that are trained."""
    return sum(p.numel() for p in group["params"] if p.requires_grad)


def _is_id(key: str, given: Mapping[str, Any]) -> bool:
    return any(key in group["params"] for group in given["param_groups"])


def _complex(name: str) -> RecipeError:
    return RecipeError(
        f"parameter {name} has complex entries",
        "online merging takes real ones: train torch.view_as_real of it, or leave it out of the optimizer",
    )
