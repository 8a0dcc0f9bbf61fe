"""A candidate: one model to measure. Each kind is a class of its own that answers the questions asked here.

The loop that makes and measures candidates, the writer of checkpoints, the check and the report know this class alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from mergetool.fingerprints import digest
from mergetool.study.candidates.entry import Entry
from mergetool.study.candidates.models import StudyModels
from mergetool.study.candidates.ranges import Range, space_of
from mergetool.study.candidates.weights import CheckpointWeights, MergedWeights
from mergetool.study.candidates.workspace import Workspace


@dataclass(frozen=True)
class Candidate(ABC):
    """One model to measure.

    Attributes:
        name: unique in the study; also its directory in OUT/candidates.
        group: the name without the seed: candidates of one group are reported as mean and spread.
        family: one colour in the picture.
        entry: the line of the recipe's `candidates` that it comes from; "" for the recipe's models.
        settings: the grid point, only what varies within the family.
        seed: None where nothing is random.
        recipe: what its command is given; models are called SFT, BASE and RLHF until `with_models`.
        run: the align candidate whose result is RLHF in it, or whose training it is a part of.
        trial: its number in a search; None outside of one.
        path: its checkpoint, where that is there before the study runs.
        made_of: other candidates that have to be made first, by the names that the recipe calls them.
        kept: whether its checkpoint is written because others are made of it.
    """

    name: str
    group: str
    family: str
    entry: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    recipe: dict[str, Any] | None = None
    run: Candidate | None = None
    trial: int | None = None
    path: Path | str | None = None
    made_of: Mapping[str, Candidate] = field(default_factory=dict)
    kept: bool = False

    kind: ClassVar[str]
    """In results.jsonl, and in what `identity` hashes."""
    schema: ClassVar[Any] = None
    """What a study has under the key of this kind."""
    searchable: ClassVar[bool] = False
    """Whether ranges and lists of it may be searched."""
    needs_rlhf: ClassVar[bool] = False
    """Whether it is made from models.rlhf."""
    is_training: ClassVar[bool] = False
    """Whether it is a training of its own, whose result models.rlhf may name."""
    is_model: ClassVar[bool] = False
    """Whether it is one of the study's models: what all others are compared with, drawn with a mark of its own."""
    counted: ClassVar[str | None] = None
    """What `mergetool check` counts it among: "trainings" or "merges"."""
    command: ClassVar[str | None] = None
    """The command of mergetool that makes the same checkpoint from the recipe in its line of results."""
    doing: ClassVar[str] = "loading"
    """What is going on while it is made."""
    run_is: ClassVar[str] = "its RLHF model"
    """What `run` is to it."""

    # from the study to candidates

    @classmethod
    def trainings(cls, study: StudyModels, entry: Entry, grid: Any, named: Sequence[str] | None = None) -> Sequence[Self]:
        """The trainings of an entry; they are made first, for other entries may need their results.

        Args:
            study: its models.
            entry: the line of the recipe.
            grid: what it has under the key of this kind, as `schema` reads it.
            named: settings to show in names, in place of those that vary.

        Raises:
            RecipeError: a key without meaning here, or a model that the study lacks.
        """
        return []

    @classmethod
    def expand(
        cls,
        study: StudyModels,
        entry: Entry,
        grid: Any,
        trainings: Sequence[Candidate],
        named: Sequence[str] | None = None,
    ) -> Sequence[Candidate]:
        """All other candidates of an entry.

        Args:
            trainings: of all entries that are not searched, and the candidates of those that this one depends on.
            study, entry, grid, named: as of `trainings`.

        Raises:
            RecipeError: as `trainings`.
        """
        return []

    @classmethod
    def depends_on(cls, grid: Any) -> list[str]:
        """Names of the entries whose candidates have to be made before those of this one, but for models.rlhf."""
        return []

    @classmethod
    def search_space(cls, grid: Any) -> dict[str, Range | list[Any]]:
        """What varies in a grid that is searched.

        Raises:
            ValueError: nothing, or it cannot be searched.
        """
        return space_of(grid)

    # what it is

    @property
    def needs(self) -> str | None:
        """Name of the run that it is made of."""
        return self.run.name if self.run else None

    @property
    def sources(self) -> dict[str, Candidate]:
        """The candidates that have to be made before this one, by the names that the recipe calls them."""
        return {**({"RLHF": self.run} if self.run else {}), **self.made_of}

    @property
    def part_of(self) -> str | None:
        """The group of the training that it is an earlier state of."""
        return None

    @property
    def remark(self) -> str:
        """What the recipe alone does not say, for the report."""
        return ""

    def with_models(self, names: dict[str, str]) -> dict[str, Any] | None:
        """The recipe with SFT, BASE and RLHF replaced by what `names` says."""
        return _replace(self.recipe, names)

    def resolved_recipe(self, workspace: Workspace) -> dict[str, Any] | None:
        """The recipe with real paths: what a user would run by hand."""
        names = {name: str(source) for name, source in workspace.models.items()}
        names |= {name: str(one.place(workspace)) for name, one in self.sources.items()}
        return self.with_models(names)

    def place(self, workspace: Workspace) -> Path | str:
        """Where its checkpoint lies, or will."""
        return self.path if self.path is not None else workspace.directory(self.name).absolute()

    def identity(self, workspace: Workspace) -> str:
        """What it is: equal values, equal weights."""
        return digest(self._identity_parts(workspace))

    def identities(self, workspace: Workspace) -> list[str]:
        """Its identity, and the one it had before identity was content: either marks a directory as its own."""
        return [self.identity(workspace), self.identity(workspace.legacy)]

    def _identity_parts(self, workspace: Workspace) -> list[Any]:
        return [self.kind, self._recipe_by_content(workspace)]

    def _recipe_by_content(self, workspace: Workspace) -> dict[str, Any]:
        """The recipe whose models are hashes."""
        names = dict(workspace.identities)
        names |= {name: one.identity(workspace) for name, one in self.sources.items()}
        return self.with_models(names) or {}

    @classmethod
    def canonical(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        """A recipe of its command without what may be left out, to find a result's candidate by.

        Raises:
            RecipeError: this version cannot read it.
        """
        return recipe

    # what is done with it

    def check(self, models: dict[str, str]) -> None:
        """Whether it can be made, from headers and data files alone.

        Args:
            models: SFT, BASE and RLHF -> checkpoint; SFT's for an RLHF model, and what else is still to be made.

        Raises:
            MergetoolError: what is wrong with its recipe.
        """
        return

    @abstractmethod
    def checkpoint(self, workspace: Workspace) -> Path | str | None:
        """Its checkpoint, where it lies complete; None where it has to be made first."""

    @abstractmethod
    def make(self, workspace: Workspace) -> CheckpointWeights | MergedWeights:
        """Trains or learns what it takes; `run` has been made.

        Raises:
            MergetoolError: it cannot be made.
        """


def _replace(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replace(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value
