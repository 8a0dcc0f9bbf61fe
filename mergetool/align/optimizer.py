"""From the recipe's `merging:` to an optimizer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergetool.align.check import merges_of
from mergetool.align.recipe import AlignRecipe
from mergetool.align.report import Report, silent
from mergetool.align.row_gradients import projection
from mergetool.methods import TRAININGS, Training

if TYPE_CHECKING:
    import torch

    from mergetool.optim.base import MergedAmount

Groups = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """What a run will merge: "How much is merged" in docs/methods.md.

    Attributes:
        method: the recipe's.
        every, merges: K and M; of a method that projects gradients of rows, the steps until they are computed anew.
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
    return 0.0 if amount is None else _total(TRAININGS[method], amount)


def calibrated_on(optimizer: Any) -> dict[str, Any] | None:
    """The facts of the calibration that an optimizer projects by; None where it reads none."""
    found = getattr(getattr(optimizer, "optimizer", optimizer), "calibration", None)
    return None if found is None else dict(found.facts)


def merges_so_far(optimizer: Any) -> int:
    """How many merges there have been; 0 of an optimizer that merges nothing."""
    amount = getattr(getattr(optimizer, "optimizer", optimizer), "merged", None)
    return 0 if amount is None else int(amount.merges)


def _total(row: Training, amount: MergedAmount) -> float:
    """The part of tau_s; where merging moves toward theta_s, the part 1 - (1 - alpha)^M of the distance taken back."""
    if not row.online.points:
        return float(amount.share)
    return 1 - (1 - amount.alpha / amount.merges) ** amount.merges if amount.merges else 0.0


def make_optimizer(
    recipe: AlignRecipe,
    groups: Groups,
    steps: int,
    config: Any,
    base: Path | None,
    sft: Path,
    fisher: Path | None = None,
    report: Report = silent,
    head: Groups = (),
) -> tuple[torch.optim.Optimizer, Plan]:
    """The optimizer that a recipe asks for, and what it will merge.

    Args:
        recipe: its `merging` says which and with what options; what it leaves out keeps the optimizer's default.
        groups: parameter groups with NAMED parameters, as model.named_parameters() gives them.
        steps: T, the optimizer steps of the whole run.
        config: TRL's config: learning rate, betas, epsilon.
        base, sft: the directories of theta_b and theta_s.
        report: called as a calibration is made.
        fisher: the file of theta_s' Fisher information, where the method reads it.
        head: groups of what theta_s has not; AdamW trains them whatever the method.

    Raises:
        RecipeError: the run is too short to merge even once.
    """
    import torch

    adam = {"lr": config.learning_rate, "betas": (config.adam_beta1, config.adam_beta2), "eps": config.adam_epsilon}
    merging, row = recipe.merging, recipe.merging.training
    every, merges = merges_of(recipe, steps)
    if row is None:
        optimizer = torch.optim.AdamW([*groups, *head], **adam, fused=True)
        baseline = merging.baseline
        if baseline is not None and baseline.attach is not None:
            baseline.attach(optimizer, merging, sft, fisher)
        asked = projection(recipe, 0)
        return optimizer, Plan(merging.method) if asked is None else Plan(merging.method, asked.every)

    from mergetool import optim
    from mergetool.optim.names import canonical
    from mergetool.optim.reference import Reference

    options = merging.given() | dict(row.given or {})
    storage = options.pop("storage", "mmap")
    options["every"] = every
    if "alpha_total" in options:
        options["total_steps"] = steps
    if recipe.calibrated_on is not None:

        def told(done: int, total: int, what: str) -> None:
            report("calibrate", {"done": done, "total": total, "what": what})

        options["calibration"] = recipe.calibrated_on.obtain(sft, told)
    if row.online.points or merging.needs_base:
        start = None if row.online.points else base
        reference = Reference.from_checkpoints(start, sft, storage=storage)
        if head:  # all of the trunk must be there all the same
            reference.check((canonical(name), tuple(p.shape)) for group in groups for name, p in group["params"])
            reference = Reference.from_checkpoints(start, sft, storage=storage, missing="zero")
        options["reference"] = reference
    groups = [*groups, *(group | _plain(row, group) for group in head)]
    optimizer = getattr(optim, row.online.optimizer)(groups, **adam, **options)
    total = _total(row, optimizer.planned(steps))
    return optimizer, Plan(merging.method, every, merges, float(optimizer.param_groups[0]["alpha"]), float(total))


def groups_of(named: Sequence[tuple[str, torch.Tensor]], decays: Collection[str], weight_decay: float) -> Groups:
    """Groups of named parameters: those whose names are in `decays`, and those without weight decay; empty ones left out."""
    groups = [
        {"params": [(n, p) for n, p in named if n in decays], "weight_decay": weight_decay},
        {"params": [(n, p) for n, p in named if n not in decays], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _plain(row: Training, group: dict[str, Any]) -> dict[str, Any]:
    """The settings under which a group's merge is AdamW's own step."""
    if row.online.calibrated:
        return {"only": None, "skip": ",".join(name for name, _ in group["params"])}
    return {"density": 1.0, "alpha": 0.0, "alpha_total": None, "clip": None}
