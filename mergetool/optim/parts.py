"""What a step knows of a parameter: its name, its place in the whole tensor, its reference, and Adam's state, flat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from mergetool.errors import RecipeError
from mergetool.methods import STATISTIC
from mergetool.ops.projector import Projector
from mergetool.optim.deltas import AdamDelta, Delta, stored
from mergetool.optim.rounded import COARSE
from mergetool.optim.sharding import Shard, local


@dataclass
class Binding:
    """What an optimizer knows about one parameter and can find again: nothing of it goes into a state_dict.

    `projector` is the F_P of an optimizer that projects. `fixed` holds what stays the same between merges: the kept entries
    of τ where their mask is fixed or they are the largest, under the settings that they were found with.
    """

    name: str
    shard: Shard
    tau: Delta | None = None
    looked_up: bool = False
    projector: Projector | None = None
    fixed: dict[Any, Any] = field(default_factory=dict)


def entries(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """This rank's entries of a parameter in the order of their indices, flat: its memory where that is in this order.

    Another memory format (channels_last) is copied, and `put_back` writes it: indices, and so masks, do not depend on it.

    Raises:
        RecipeError: entries share memory.
    """
    held = tensor.detach()
    held = getattr(held, "_local_tensor", held)
    if any(size > 1 and not stride for size, stride in zip(held.shape, held.stride(), strict=True)):
        raise RecipeError(f"entries of parameter {name} share memory", "call .contiguous() on it before training")
    return held.contiguous().view(-1)


def put_back(tensor: torch.Tensor, theta: torch.Tensor) -> None:
    """Write the entries that `entries` gave into the parameter, where they are a copy."""
    held = tensor.detach()
    held = getattr(held, "_local_tensor", held)
    if not held.is_contiguous():
        held.copy_(theta.view(held.shape))


class AdamPart(NamedTuple):
    """This rank's part of one parameter in one step of AdamW.

    Attributes:
        parameter: the parameter itself.
        theta, grad, m, v: this rank's part, flat; `grad` is empty where the parameter has none and is merged alone.
        state: the parameter's state in the optimizer.
        group: its settings.
        binding: its name, shard and τ_s.
    """

    parameter: torch.Tensor
    theta: torch.Tensor
    grad: torch.Tensor
    m: torch.Tensor
    v: torch.Tensor
    state: dict[str, Any]
    group: dict[str, Any]
    binding: Binding

    @classmethod
    def of(cls, parameter: torch.Tensor, state: dict[str, Any], group: dict[str, Any], binding: Binding) -> AdamPart:
        """The part of a parameter that has a state.

        Raises:
            RecipeError: the state does not fit the parameter: kernels would read beyond its end.
        """
        theta, m, v = entries(parameter, binding.name), local(state["exp_avg"]), local(state["exp_avg_sq"])
        grad = theta.new_empty(0)
        if parameter.grad is not None:
            held = getattr(parameter.grad, "_local_tensor", parameter.grad)
            assert isinstance(held, torch.Tensor)
            grad = held.detach().contiguous().view(-1)
        sizes = {theta.numel(), m.numel(), v.numel(), *([] if parameter.grad is None else [grad.numel()])}
        if "anchor" in state:
            sizes.add(local(state["anchor"]).numel())
        types = {theta.dtype, torch.float32} if theta.dtype in COARSE else {theta.dtype}
        if len(sizes) > 1 or m.dtype != v.dtype or m.dtype not in types:
            raise RecipeError(
                f"the optimizer's state does not fit parameter {binding.name}: {m.numel()} entries of {m.dtype} for "
                f"{theta.numel()} of {theta.dtype}",
                "make a new optimizer where a model's tensors are resized or change their type",
            )
        return cls(parameter, theta, grad, m, v, state, group, binding)

    @property
    def t(self) -> torch.Tensor:
        """Adam's step count, from 1; fp32, no dimensions."""
        return self.state["step"]

    @property
    def lr(self) -> float:
        """η."""
        return float(self.group["lr"])

    @property
    def betas(self) -> tuple[float, float]:
        """(β₁, β₂)."""
        first, second = self.group["betas"]
        return first, second

    @property
    def decay(self) -> float:
        """1 − η·λ."""
        return 1 - self.lr * self.group["weight_decay"]

    @property
    def update(self) -> AdamDelta:
        """Δθ, once the moments are this step's."""
        delta = AdamDelta(self.m, self.v, int(self.t), self.lr, self.betas, self.group["eps"])
        delta.ranking = self.ranking
        return delta

    @property
    def ranking(self) -> Delta | None:
        """m, where the update's entries are ranked by it; None where they are by their own magnitude."""
        by_delta = self.group.get(STATISTIC.name, STATISTIC.default) == STATISTIC.default
        return None if by_delta else stored(self.m, None)

    @property
    def anchor(self) -> torch.Tensor:
        """θ after the last merge, flat; there is one at K > 1."""
        return local(self.state["anchor"])
