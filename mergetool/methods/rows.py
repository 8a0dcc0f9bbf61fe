"""The parts of a row of the table of methods, and what a row says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mergetool.methods.settings import SCOPE, SETTINGS, Fits, Values
from mergetool.options import Option


@dataclass(frozen=True, slots=True)
class SparsifierRow:
    """What is done to each delta before they are combined.

    Attributes:
        name: its file in `mergetool/ops/sparsifiers`.
        options: what may be set.
        random: whether random numbers decide.
        gathers: whether its statistic holds a part of a tensor in memory.
        fits: whether the options go together.
    """

    name: str
    options: tuple[Option, ...] = ()
    random: bool = False
    gathers: bool = False
    fits: Fits = lambda values: None


@dataclass(frozen=True, slots=True)
class ConsensusRow:
    """How the deltas, or the models themselves, become one.

    Attributes:
        name: its file in `mergetool/ops/consensus`.
        options: what may be set.
        of_models: whether it combines the models themselves, so that nothing is a delta of anything.
        pair: whether it takes base_model and one other model, in this order.
        base_too: whether base_model is one of the models that are combined.
        models: the fewest and the most models that it takes beside base_model; None for any number.
        gathers: whether its statistic holds a part of a tensor in memory.
        calibrated: whether it reads what the maps of each model read: each has a calibration of its own.
        answers: whether it reads each model's Fisher information in place of that: its rows have answers.
        divides: the option under which the weights of a tensor are divided by their sum; None where there is none.
    """

    name: str
    options: tuple[Option, ...] = ()
    of_models: bool = False
    pair: bool = False
    base_too: bool = False
    models: tuple[int, int | None] = (1, None)
    gathers: bool = False
    calibrated: bool = False
    answers: bool = False
    divides: str | None = None


@dataclass(frozen=True, slots=True)
class ProjectionRow:
    """What is taken from each delta before it is sparsified: the part that calibration rows would see.

    Attributes:
        options: which projection, see `mergetool.ops.projection.Rule`.
        fits: whether the options go together.
    """

    options: tuple[Option, ...]
    fits: Fits


@dataclass(frozen=True, slots=True)
class Online:
    """A method's use at every K-th step of an optimizer.

    Attributes:
        name: `optimizer.method`, and the file in `mergetool/optim/operators`.
        optimizer: the class in `mergetool.optim`.
        word: `merging.method` in an align recipe.
        keys: what an align recipe may set, beside what all of them have.
        defaults: settings whose defaults are not those of `SETTINGS`.
        points: whether the reference is θ_s itself, which θ is moved toward after AdamW's own step, and not τ_s.
        bounded: whether the planned share of the reference is an upper bound of what is merged.
        merges: what is merged, in words.
        fits: whether a group's settings go together.
        own: settings beside `SETTINGS`.
        later: settings that a group has where they are not the default alone: a state_dict keeps the keys that it had without.
        calibrated: whether it reads a calibration, and no reference.
    """

    name: str
    optimizer: str
    word: str
    keys: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] | None = None
    points: bool = False
    bounded: bool = False
    merges: str = "the SFT delta"
    fits: Fits = lambda values: None
    own: tuple[Option, ...] = ()
    later: tuple[Option, ...] = ()
    calibrated: bool = False

    @property
    def options(self) -> tuple[Option, ...]:
        """What every parameter group has."""
        return (*SETTINGS, *self.own)

    @property
    def settings(self) -> dict[str, Any]:
        """setting -> default, of every parameter group."""
        return {setting.name: setting.default for setting in self.options} | dict(self.defaults or {})


@dataclass(frozen=True, slots=True)
class Method:
    """One row.

    Attributes:
        name: `merge_method` in a merge recipe.
        sparsifier, consensus: what is done.
        options: what a recipe's `parameters` may set, with this method's defaults.
        needs_base: whether `base_model` is required.
        source: the paper, and the equation or section.
        use: one line on when to use it.
        online: its use in an optimizer; None where it has none.
        projection: what is taken from each delta first; None where nothing is. Such a method needs a calibration.
    """

    name: str
    sparsifier: SparsifierRow
    consensus: ConsensusRow
    options: tuple[Option, ...]
    needs_base: bool
    source: str
    use: str
    online: Online | None = None
    projection: ProjectionRow | None = None

    @property
    def parameters(self) -> frozenset[str]:
        """Names that a recipe may set, per model or for all."""
        return frozenset(option.name for option in self.options)

    @property
    def deterministic(self) -> bool:
        """True where no random numbers take part."""
        return not self.sparsifier.random

    @property
    def of_models(self) -> bool:
        """True where the models themselves are combined, not deltas."""
        return self.consensus.of_models

    @property
    def projects(self) -> bool:
        """True where deltas are projected, so that a calibration of the base is needed."""
        return self.projection is not None

    def fits(self, values: Values) -> tuple[str, str] | None:
        """Whether a delta's options go together: what is wrong and the next thing to do, or None."""
        wrong = None if self.projection is None else self.projection.fits(values)
        return wrong or self.sparsifier.fits(values)

    def merges_models(self, base: str | None) -> bool:
        """True where the models themselves are combined and not deltas, given the recipe's `base_model`."""
        return self.of_models or (not self.needs_base and base is None)

    def over_whole_model(self, values: Values) -> bool:
        """True where the sparsifier's statistic is taken over a model's whole task vector, not tensor by tensor."""
        return values.get(SCOPE.name) == "model"


@dataclass(frozen=True, slots=True)
class Training:
    """What `merging.method` of an align recipe may be, of the methods that merge; baselines are in align/baselines.py.

    Attributes:
        word: that.
        keys: what else `merging` may set; what a recipe leaves out keeps the optimizer's own default.
        online: the operator.
        given: settings that the word stands for.
    """

    word: str
    keys: frozenset[str]
    online: Online
    given: Mapping[str, Any] | None = None

    @property
    def mixes(self) -> bool:
        """True where a share of the SFT model, or of its delta, is merged: `alpha` then says how much."""
        return "alpha" in self.keys

    @property
    def merges_delta(self) -> bool:
        """True where that is τ_s = sft − base, so that a base is needed wherever alpha is not 0."""
        return self.mixes and not self.online.points

    @property
    def merges(self) -> str:
        """What is merged, in words."""
        return self.online.merges

    @property
    def at_most(self) -> str:
        """ "at most ", where the planned amount is a bound."""
        return "at most " if self.online.bounded else ""
