"""What a merge needs to know beside weights: calibrations, obtained before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

from mergetool.activations.artifact import Calibration
from mergetool.activations.fisher_file import FisherFile
from mergetool.config.sources import resolve_source
from mergetool.merge.own_information import OwnInformation
from mergetool.merge.own_moments import OwnMoments
from mergetool.merge.plan import Plan, Source, TensorPlan
from mergetool.merge.projected import calibration_of, shapes_of
from mergetool.merge.recipe import MergeRecipe
from mergetool.merge.vocabulary import Vocabulary
from mergetool.methods import Method
from mergetool.ops.projection import Rule


class Own(Protocol):
    """What is known of each model of a merge beside its weights. Threads share it.

    Attributes:
        lacking: what is said of the tensors in `unknown`.
    """

    lacking: ClassVar[str]

    def known(self, tensor: TensorPlan) -> Any:
        """What the method's consensus is to know of one tensor; None where some model's is not known."""
        ...

    def unknown(self, tensors: Sequence[TensorPlan]) -> list[str]:
        """The tensors of which the weighted mean is taken."""
        ...


@dataclass(frozen=True)
class Obtained:
    """The calibrations of one merge.

    Attributes:
        of_base: of a method that projects deltas.
        of_models: of a method that reads what each model reads, in the recipe's order.
        fisher: of a method that reads the Fisher information of each, in that order.
        facts: place and name of a model in the recipe -> the facts of its own; None where no model has one.
        notes: lines for the user about them.
    """

    of_base: Calibration | None = None
    of_models: tuple[Calibration, ...] = ()
    fisher: tuple[FisherFile, ...] = ()
    facts: dict[str, dict[str, Any]] | None = None
    notes: list[str] = field(default_factory=list)

    def own(self, plan: Plan, device: str = "cpu") -> Own | None:
        """What the plan's method is given of each model; None where it asks for nothing."""
        vocabulary = () if plan.vocabulary is None else plan.vocabulary.rows
        if self.fisher:
            return OwnInformation(self.fisher, plan.sources, vocabulary)
        return OwnMoments(self.of_models, plan.sources, device, vocabulary) if self.of_models else None


def obtain(plan: Plan, progress: Callable[[int, int, str], None] | None = None) -> Obtained:
    """Every calibration that a merge needs, made now where it is to be made of rows.

    Raises:
        CheckpointError: one is of another model than the one that it stands beside.
    """
    of_base = calibration_of(plan, progress)
    if plan.method is None or not plan.method.consensus.calibrated:
        return Obtained(of_base)
    entries = [(resolve_source(model, "."), entry) for model, entry in plan.recipe.calibrations()]
    if plan.method.consensus.answers:
        made = [entry.obtain_fisher(model, progress) for model, entry in entries]
        found, told = Obtained(fisher=tuple(file for file, _ in made)), [facts for _, facts in made]
    else:
        own = tuple(entry.obtain(model, progress) for model, entry in entries)
        found, told = Obtained(of_models=own), [dict(one.facts) for one in own]
    facts = {plan.entry(str(i)): one for i, one in enumerate(told)}
    return replace(found, facts=facts, notes=_notes(found.own(plan), plan.tensors))


def check_own(
    recipe: MergeRecipe,
    method: Method,
    tensors: Sequence[TensorPlan],
    sources: Sequence[Source],
    vocabulary: Vocabulary | None = None,
) -> list[str]:
    """Refuses the models' calibrations that can be known to be unfit without weights; a line on tensors that they lack.

    Raises:
        CheckpointError: there is no such file, or it is of another model. DataError: a row cannot be read, or there is none.
        RecipeError: a file is given where rows with answers are needed.
    """
    shapes = shapes_of(tensors, vocabulary)
    own = [entry for _, entry in recipe.calibrations()]
    if method.consensus.answers:
        for entry in own:
            entry.check_answers()
        return []
    for entry in own:
        entry.check(shapes, [Rule()])
    opened = tuple(Calibration.load(entry.file) for entry in own if entry.file is not None)
    return _notes(OwnMoments(opened, sources), tensors) if len(opened) == len(own) else []


def _notes(own: Own | None, tensors: Sequence[TensorPlan]) -> list[str]:
    if own is None or not (unknown := own.unknown(tensors)):
        return []
    more = f" ({unknown[0]}, …)" if len(unknown) > 1 else f" ({unknown[0]})"
    return [f"{len(unknown)} of {len(tensors)} tensors {own.lacking}{more}: their weighted mean is taken"]
