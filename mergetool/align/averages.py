"""Averages of the weights along a run: `ema`, `sma`, `bema`, and the resets to one of `elastic_reset`.

A rule says what is kept for each tensor and how a step changes it; `averaging` keeps it beside a training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from mergetool.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

Every = int | Literal["total"]


@dataclass(frozen=True)
class Average(ABC):
    """One rule.

    Attributes:
        every: K: look at the weights at every K-th step after `since`; "total" at the last one alone.
        since: where in the run it begins: a share of it below 1, else a step.
    """

    every: Every = 1
    since: float = 0

    keeps: ClassVar[tuple[str, ...]]
    """What it keeps of each tensor; files of a checkpoint have these names."""
    published: ClassVar[str | None] = None
    """Which of them is written in place of the weights that are trained."""

    def begin(self, theta: Tensor) -> dict[str, Tensor]:
        """What is kept of one tensor before the first step; fp32."""
        return {name: theta.float().clone() for name in self.keeps}

    def step(self, kept: dict[str, Tensor], theta: Tensor, t: int, steps: int) -> None:
        """Looks at one tensor after step t of `steps`; changes what is kept, in place."""
        start, every = self.places(steps)
        if t <= start:
            for held in kept.values():
                held.copy_(theta)
        elif (t - start) % every == 0:
            self.update(kept, theta, t, (t - start) // every)

    @abstractmethod
    def update(self, kept: dict[str, Tensor], theta: Tensor, t: int, n: int) -> None:
        """The rule itself: the n-th look, from 1 on, at step t. `theta` is the live tensor, of any type."""

    def places(self, steps: int) -> tuple[int, int]:
        """The step after which it begins, and K, of a run of `steps` steps.

        Raises:
            RecipeError: the run ends before the first look.
        """
        start = int(self.since) if self.since >= 1 else round(self.since * steps)
        every = max(1, steps - start) if self.every == "total" else self.every
        if steps and start + every > steps:
            raise RecipeError(
                f"merging.every: the first look at the weights would be at step {start + every}, and the run has {steps}",
                "lower `every` or `since`, or train longer",
            )
        return start, every

    @abstractmethod
    def told(self, step: int, steps: int) -> str:
        """What is written of the weights of a step, in words."""

    def _steps(self, step: int, steps: int) -> str:
        start, every = self.places(steps)
        first, last = start + every, step - (step - start) % every
        if last <= first:
            return f"step {min(step, first)}"  # before the first look it is the weights themselves
        return f"{'steps' if every == 1 else f'every {every} steps from'} {first} to {last}"


@dataclass(frozen=True)
class Ema(Average):
    """θ̄ ← (1 − c)·θ̄ + c·θ. Source: Lu et al. 2024, arXiv 2405.17931, baseline EMA."""

    coefficient: float = 1e-3
    keeps = ("ema",)
    published = "ema"

    def update(self, kept: dict[str, Tensor], theta: Tensor, t: int, n: int) -> None:
        """As `Average.update`."""
        kept["ema"].lerp_(theta.float(), self.coefficient)

    def told(self, step: int, steps: int) -> str:
        """As `Average.told`."""
        return f"the moving average (coefficient {self.coefficient:g}) of the weights of {self._steps(step, steps)}"


@dataclass(frozen=True)
class Sma(Average):
    """θ̄ ← θ̄ + (θ − θ̄)/n. Source: Izmailov et al. 2018, arXiv 1803.05407; Lin et al. 2023, arXiv 2309.06256."""

    keeps = ("sma",)
    published = "sma"

    def update(self, kept: dict[str, Tensor], theta: Tensor, t: int, n: int) -> None:
        """As `Average.update`."""
        kept["sma"].lerp_(theta.float(), 1 / n)

    def told(self, step: int, steps: int) -> str:
        """As `Average.told`."""
        return f"the mean of the weights of {self._steps(step, steps)}"


@dataclass(frozen=True)
class Bema(Average):
    """θ̄ + α_t·(θ_t − θ_0), θ̄ ← (1 − β_t)·θ̄ + β_t·θ_t, α_t = (ρ + γt)^−η, β_t = (ρ + γt)^−κ.

    Source: Block & Zhang 2025, arXiv 2508.00180; symbols and words as in TRL's BEMACallback.

    Attributes:
        lag, multiplier: ρ and γ.
        ema_power, bias_power: κ and η.
    """

    lag: float = 10.0
    multiplier: float = 1.0
    ema_power: float = 0.5
    bias_power: float = 0.2
    keeps = ("bema", "ema", "start")
    published = "bema"

    def update(self, kept: dict[str, Tensor], theta: Tensor, t: int, n: int) -> None:
        """As `Average.update`."""
        now, age = theta.float(), self.lag + self.multiplier * t
        kept["ema"].lerp_(now, age**-self.ema_power)
        kept["bema"].copy_(now).sub_(kept["start"]).mul_(age**-self.bias_power).add_(kept["ema"])

    def told(self, step: int, steps: int) -> str:
        """As `Average.told`."""
        return f"the bias-corrected moving average of the weights of {self._steps(step, steps)}"


@dataclass(frozen=True)
class ElasticReset(Average):
    """θ̄ as `Ema` at every step; at every K-th θ ← θ̄, then θ̄ ← θ_0. AdamW's moments stay.

    Source: Noukhovitch et al. 2023, arXiv 2312.07551; what stays, as in its code for LLaMA.
    """

    coefficient: float = 5e-3
    keeps = ("ema", "start")

    def step(self, kept: dict[str, Tensor], theta: Tensor, t: int, steps: int) -> None:
        """As `Average.step`, but every step is looked at."""
        kept["ema"].lerp_(theta.float(), self.coefficient)
        if t % self.places(steps)[1] == 0:
            self.update(kept, theta, t, 1)

    def update(self, kept: dict[str, Tensor], theta: Tensor, t: int, n: int) -> None:
        """As `Average.update`: the reset."""
        theta.copy_(kept["ema"])
        kept["ema"].copy_(kept["start"])

    def told(self, step: int, steps: int) -> str:
        """As `Average.told`."""
        every = self.places(steps)[1]
        return f"the weights after {step // every} resets to their moving average (coefficient {self.coefficient:g})"
