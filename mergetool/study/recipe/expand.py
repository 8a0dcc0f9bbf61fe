"""Lines of `candidates` to candidates: those that are known beforehand, and the trials of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mergetool.errors import MergetoolError, RecipeError
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.kinds import CandidateEntry
from mergetool.study.candidates.model import ModelCandidate
from mergetool.study.candidates.ranges import Range
from mergetool.study.recipe.study_recipe import StudyRecipe


def expand(recipe: StudyRecipe) -> list[Candidate]:
    """Every candidate that is known beforehand: the models, then trainings, then what is made of them.

    The trials of a search are not among them: see `trial_points`.

    Raises:
        RecipeError: a key that this method does not have, or a model that it needs and the study lacks.
    """
    trainings = _trainings(recipe)
    found: list[Candidate] = [*ModelCandidate.of(recipe), *trainings]
    for entry in recipe.candidates:
        if entry.search is None:
            found += entry.candidate_class.expand(recipe, entry, entry.grid, trainings)
    names = [one.name for one in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RecipeError(f"candidate '{twice}' occurs twice", "remove the repeated value from its list")
    return found


def _trainings(recipe: StudyRecipe) -> list[Candidate]:
    entries = [entry for entry in recipe.candidates if entry.search is None]
    return [one for entry in entries for one in entry.candidate_class.trainings(recipe, entry, entry.grid)]


def trial_points(recipe: StudyRecipe, entry: CandidateEntry, number: int, values: dict[str, Any]) -> list[Candidate]:
    """One trial of a search: its candidates differ in their seed alone, as those of a grid point do.

    Args:
        number: of the trial, from 1.
        values: what the search chose for the keys that it varies.

    Raises:
        RecipeError: as `expand`.
    """
    kind, grid = entry.candidate_class, entry.grid
    point = type(grid).model_validate({**grid.model_dump(exclude_unset=True), **values})
    changes = {"name": f"{entry.name} {number}", "family": entry.family_name, "search": None, entry.key: point}
    trial, shown = entry.model_copy(update=changes), list(values)
    found: Sequence[Candidate] = kind.trainings(recipe, trial, point, shown)
    found = [*found, *kind.expand(recipe, trial, point, _trainings(recipe), shown)]
    return [replace(one, entry=entry.name, trial=number) for one in found]


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
