"""From the recipe's `merging:` to an optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergetool.align.check import merges_of
from mergetool.align.recipe import AlignRecipe

if TYPE_CHECKING:
    import torch

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class Merged:
    """How much of the SFT delta a run merges: "How much is merged" in docs/methods.md.

    Attributes:
        method: the recipe's.
        every, merges: K and M.
        alpha: weight at each merge.
        share: of tau_s that a merge adds per unit of alpha, in expectation.
    """

    method: str
    every: int
    merges: int
    alpha: float
    share: float

    def amount(self, steps: int | None = None) -> float:
        """The part of tau_s merged after `steps` optimizer steps (by default after all).

        For `onlinear` it is the part of the distance to theta_s that is taken back, 1 - (1 - alpha)^M.
        """
        merges = self.merges if steps is None else steps // self.every
        if self.method == "onlinear":
            return 1 - (1 - self.alpha) ** merges
        return merges * self.alpha * self.share

    def as_facts(self) -> dict[str, Any]:
        """For the manifest and the log."""
        return {"every": self.every, "merges": self.merges, "alpha": self.alpha, "merged_total": self.amount()}


def make_optimizer(
    recipe: AlignRecipe, groups: Groups, steps: int, config: Any, base: Path | None, sft: Path
) -> tuple[torch.optim.Optimizer, Merged]:
    """The optimizer that a recipe asks for, and how much it will merge.

    Args:
        recipe: its `merging` says which and with what knobs; what it leaves out keeps the optimizer's default.
        groups: parameter groups with NAMED parameters, as model.named_parameters() gives them.
        steps: T, the optimizer steps of the whole run.
        config: TRL's config: learning rate, betas, epsilon.
        base, sft: the directories of theta_b and theta_s.

    Raises:
        RecipeError: the run is too short to merge even once.
    """
    import torch

    adam = {"lr": config.learning_rate, "betas": (config.adam_beta1, config.adam_beta2), "eps": config.adam_epsilon}
    merging = recipe.merging
    every, merges = merges_of(recipe, steps)
    if merging.method == "adamw":
        return torch.optim.AdamW(groups, **adam, fused=True), Merged("adamw", 1, 0, 0.0, 0.0)

    from mergetool import optim

    knobs = merging.given()
    storage = knobs.pop("storage", "mmap")
    knobs["every"] = every
    if merging.method == "childtuning":
        knobs.update(alpha=0.0, rescale="unbiased")
    if "alpha_total" in knobs:
        knobs["total_steps"] = steps
    if merging.method == "onlinear":
        knobs["reference"] = optim.Reference.from_checkpoints(None, sft, storage=storage)
    elif merging.needs_base:
        knobs["reference"] = optim.Reference.from_checkpoints(base, sft, storage=storage)
    kind = {"ondare": optim.OnDARE, "onties": optim.OnTIES, "onlinear": optim.OnLinear, "childtuning": optim.OnDARE}
    optimizer = kind[merging.method](groups, **adam, **knobs)
    alpha = float(optimizer.param_groups[0].get("alpha") or 0.0)
    return optimizer, Merged(merging.method, every, merges, alpha, _share(optimizer, merging.method))


def _share(optimizer: torch.optim.Optimizer, method: str) -> float:
    """Without rescaling a mask of density p lets p of tau_s through; trimming keeps the largest, so p is a floor."""
    group = optimizer.param_groups[0]
    if method == "ondare" and group.get("rescale") == "none":
        return float(group["density"])
    return 1.0
