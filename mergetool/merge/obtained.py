"""What a merge needs to know beside weights: calibrations, obtained before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mergetool.activations.artifact import Calibration
from mergetool.config.sources import resolve_source
from mergetool.merge.own_moments import OwnMoments
from mergetool.merge.plan import Plan, Source, TensorPlan
from mergetool.merge.projected import calibration_of
from mergetool.merge.recipe import MergeRecipe
from mergetool.ops.projection import Rule


@dataclass(frozen=True)
class Obtained:
    """The calibrations of one merge.

    Attributes:
        of_base: of a method that projects deltas.
        of_models: of a method that reads what each model reads, in the recipe's order.
        facts: place and name of a model in the recipe -> the facts of its own; None where no model has one.
        notes: what the user is told of them.
    """

    of_base: Calibration | None = None
    of_models: tuple[Calibration, ...] = ()
    facts: dict[str, dict[str, Any]] | None = None
    notes: list[str] = field(default_factory=list)


def obtain(plan: Plan, progress: Callable[[int, int, str], None] | None = None) -> Obtained:
    """Every calibration that a merge needs, made now where it is to be made of rows.

    Raises:
        CheckpointError: one is of another model than the one that it stands beside.
    """
    of_base = calibration_of(plan, progress)
    if plan.method is None or not plan.method.consensus.calibrated:
        return Obtained(of_base)
    entries = [(model.model, model.calibration) for model in plan.recipe.models]
    own = tuple(entry.obtain(resolve_source(name, "."), progress) for name, entry in entries if entry is not None)
    facts = {plan.entry(str(i)): dict(one.facts) for i, one in enumerate(own)}
    return Obtained(of_base, own, facts, _notes(own, plan.tensors, plan.sources))


def check_own(recipe: MergeRecipe, tensors: Sequence[TensorPlan], sources: Sequence[Source]) -> list[str]:
    """Refuses the models' calibrations that can be known to be unfit without weights; a line on tensors that they lack.

    Raises:
        CheckpointError: there is no such file, or it is of another model. DataError: a row cannot be read, or there is none.
    """
    shapes = [(tensor.name, tensor.shape) for tensor in tensors if tensor.floating]
    entries = [model.calibration for model in recipe.models if model.calibration is not None]
    for entry in entries:
        entry.check(shapes, [Rule()])
    opened = tuple(Calibration.load(entry.file) for entry in entries if entry.file is not None)
    return _notes(opened, tensors, sources) if len(opened) == len(entries) else []


def _notes(calibrations: Sequence[Calibration], tensors: Sequence[TensorPlan], sources: Sequence[Source]) -> list[str]:
    unknown = OwnMoments(calibrations, sources).unknown(tensors)
    if not unknown:
        return []
    more = f" ({unknown[0]}, …)" if len(unknown) > 1 else f" ({unknown[0]})"
    return [f"{len(unknown)} of {len(tensors)} tensors are in no calibration or not in all{more}: their weighted mean is taken"]
