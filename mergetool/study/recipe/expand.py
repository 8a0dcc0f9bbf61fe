"""Lines of `candidates` to candidates: those that are known beforehand, and the trials of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mergetool.errors import MergetoolError, RecipeError, nearest
from mergetool.study.candidates.align import START
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.kinds import CandidateEntry
from mergetool.study.candidates.model import ModelCandidate
from mergetool.study.candidates.models import FromAlign
from mergetool.study.candidates.ranges import Range
from mergetool.study.recipe.study_recipe import StudyRecipe


def expand(recipe: StudyRecipe) -> list[Candidate]:
    """Every candidate that is known beforehand: the models, then trainings, then what is made of them.

    The trials of a search are not among them: see `trial_points`.

    Raises:
        RecipeError: a key that this method does not have, or a model that it needs and the study lacks.
    """
    made = _made(recipe)
    found: list[Candidate] = [*ModelCandidate.of(recipe), *(one for some in made.values() for one in some.trainings)]
    found += [one for some in made.values() for one in some.others]
    names = [one.name for one in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RecipeError(f"candidate '{twice}' occurs twice", "remove the repeated value from its list")
    return found


@dataclass(frozen=True)
class Made:
    """The candidates of one entry."""

    trainings: Sequence[Candidate] = ()
    others: Sequence[Candidate] = ()


def _made(recipe: StudyRecipe) -> dict[str, Made]:
    """The candidates of every entry that is not searched, by its name, in the recipe's order.

    Raises:
        RecipeError: as `expand`; or an entry depends on one that there is not, or on itself.
    """
    entries = {entry.name: entry for entry in recipe.candidates if entry.search is None}
    needed: set[str] = set()
    for entry in recipe.candidates:
        for other in entry.candidate_class.depends_on(entry.grid):
            if other not in entries:
                raise RecipeError(
                    f"candidates: '{entry.name}' is made of '{other}', and no candidate without a search is called so",
                    nearest(other, set(entries) - {entry.name}),
                )
            needed.add(other)
    made: dict[str, Made] = {}

    def make(name: str, behind: tuple[str, ...]) -> None:
        if name in made:
            return
        if name in behind:
            raise RecipeError(f"candidates: '{name}' is made of itself", "let it begin with another one")
        entry = entries[name]
        for other in _first(recipe, entry):
            make(other, (*behind, name))
        found = _of_entry(recipe, entry, made)
        others = [replace(one, kept=True) for one in found.others] if name in needed else found.others
        made[name] = Made(found.trainings, others)

    for only_trainings in (True, False):  # a merge may need any training, wherever it stands
        for name, entry in entries.items():
            if entry.candidate_class.is_training or not only_trainings:
                make(name, ())
    return {name: made[name] for name in entries}


def _first(recipe: StudyRecipe, entry: CandidateEntry) -> list[str]:
    """The entries whose candidates an entry needs."""
    kind, rlhf = entry.candidate_class, recipe.models.rlhf
    made_here = [rlhf.align] if kind.needs_rlhf and isinstance(rlhf, FromAlign) else []
    return [*kind.depends_on(entry.grid), *made_here]


def _of_entry(recipe: StudyRecipe, entry: CandidateEntry, made: Mapping[str, Made], named: Sequence[str] | None = None) -> Made:
    """The candidates of an entry, all that it needs being made."""
    kind, grid = entry.candidate_class, entry.grid
    trainings: Sequence[Candidate] = kind.trainings(recipe, entry, grid, named)
    if trainings and (begins := kind.depends_on(grid)):
        start = _only(begins[0], made[begins[0]], entry.name)
        trainings = [replace(one, made_of={**one.made_of, START: start}) for one in trainings]
    known = [one for some in made.values() for one in some.trainings]
    asked = [one for name in kind.depends_on(grid) if not made[name].trainings for one in made[name].others]
    return Made(trainings, kind.expand(recipe, entry, grid, [*known, *asked, *trainings], named))


def _only(name: str, made: Made, entry: str) -> Candidate:
    """The one candidate that a training can start from."""
    found = made.trainings or made.others
    if len(found) != 1:
        raise RecipeError(
            f"candidates: '{entry}' starts from '{name}', and these are {len(found)} candidates",
            f"give '{name}' one value and one seed, or make a soup of it",
        )
    return found[0]


def trial_points(recipe: StudyRecipe, entry: CandidateEntry, number: int, values: dict[str, Any]) -> list[Candidate]:
    """One trial of a search: its candidates differ in their seed alone, as those of a grid point do.

    Args:
        number: of the trial, from 1.
        values: what the search chose for the keys that it varies.

    Raises:
        RecipeError: as `expand`.
    """
    grid = entry.grid
    point = type(grid).model_validate({**grid.model_dump(exclude_unset=True), **values})
    changes = {"name": f"{entry.name} {number}", "family": entry.family_name, "search": None, entry.key: point}
    found = _of_entry(recipe, entry.model_copy(update=changes), _made(recipe), list(values))
    return [replace(one, entry=entry.name, trial=number) for one in (*found.trainings, *found.others)]


def probes(recipe: StudyRecipe) -> list[Candidate]:
    """Candidates at both ends of what each search may vary, so that a check can say whether they are possible.

    Raises:
        MergetoolError: Optuna is not installed.
    """
    found: list[Candidate] = []
    for entry in recipe.candidates:
        if entry.search:
            load_optuna()
            space = entry.candidate_class.search_space(entry.grid)
            ends = [{key: _end(value, at) for key, value in space.items()} for at in (0, -1)]
            for number, values in enumerate(ends, 1):
                found += trial_points(recipe, entry, number, values)
            names = {one.name for one in found}
            for key, choices in space.items():  # any one of the choices may be misspelt
                for choice in choices[1:-1] if isinstance(choices, list) else []:
                    more = trial_points(recipe, entry, 1, {**ends[0], key: choice})
                    found += [one for one in more if one.name not in names]
    return found


def _end(value: Range | list[Any], at: int) -> Any:
    return value[at] if isinstance(value, list) else (value.low, value.high)[at]


def load_optuna() -> Any:
    """Optuna, which says nothing but warnings.

    Raises:
        MergetoolError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MergetoolError("search: Optuna is not installed", 'pip install "mergetool[search]"') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
