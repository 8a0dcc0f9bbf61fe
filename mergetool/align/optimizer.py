"""From the recipe's `merging:` to an optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergetool.align.check import merges_of
from mergetool.align.recipe import KNOBS, AlignRecipe

if TYPE_CHECKING:
    import torch

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """What a run will merge: "How much is merged" in docs/methods.md.

    Attributes:
        method: the recipe's.
        every, merges: K and M.
        alpha: weight of the SFT delta at each merge.
        merged_total: the part of tau_s that all merges add, in expectation; for `onlinear` the part of the distance
            to theta_s that they take back.
    """

    method: str
    every: int = 1
    merges: int = 0
    alpha: float = 0.0
    merged_total: float = 0.0


def merged_so_far(optimizer: Any, method: str) -> float:
    """The part of tau_s merged up to now, counted by the optimizer itself (a checkpoint carries the count).

    Args:
        optimizer: perhaps inside accelerate's wrapper.
        method: the recipe's.
    """
    amount = getattr(getattr(optimizer, "optimizer", optimizer), "merged", None)
    if amount is None:
        return 0.0
    return _taken_back(amount.alpha, amount.merges) if method == "onlinear" else float(amount.share)


def _taken_back(alphas: float, merges: int) -> float:
    """1 - (1 - alpha)^M, for the M merges whose alphas sum to `alphas`."""
    return 1 - (1 - alphas / merges) ** merges if merges else 0.0


def make_optimizer(
    recipe: AlignRecipe, groups: Groups, steps: int, config: Any, base: Path | None, sft: Path
) -> tuple[torch.optim.Optimizer, Plan]:
    """The optimizer that a recipe asks for, and what it will merge.

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
    if "every" not in KNOBS[merging.method]:
        optimizer = torch.optim.AdamW(groups, **adam, fused=True)
        if merging.baseline is not None and merging.baseline.attach is not None:
            merging.baseline.attach(optimizer, merging, sft)
        return optimizer, Plan(merging.method)

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
    planned = optimizer.planned(steps)
    total = _taken_back(planned.alpha, planned.merges) if merging.method == "onlinear" else planned.share
    return optimizer, Plan(merging.method, every, merges, float(optimizer.param_groups[0]["alpha"]), float(total))
