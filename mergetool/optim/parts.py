"""What a step knows of a parameter: its name, its place in the whole tensor, its reference, and Adam's state, flat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from mergetool.ops.projector import Projector
from mergetool.optim.deltas import AdamDelta, Delta
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


class AdamPart(NamedTuple):
    """This rank's part of one parameter in one step of AdamW.

    Attributes:
        parameter: the parameter itself.
        theta, grad, m, v: flat views of this rank's part.
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
        """The part of a parameter that has a gradient and a state."""
        held = getattr(parameter.grad, "_local_tensor", parameter.grad)
        assert isinstance(held, torch.Tensor)
        grad = held.detach().contiguous().view(-1)
        return cls(
            parameter, local(parameter), grad, local(state["exp_avg"]), local(state["exp_avg_sq"]), state, group, binding
        )

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
        return AdamDelta(self.m, self.v, int(self.t), self.lr, self.betas, self.group["eps"])

    @property
    def anchor(self) -> torch.Tensor:
        """θ after the last merge, flat; there is one at K > 1."""
        return local(self.state["anchor"])
