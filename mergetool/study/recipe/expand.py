"""Entries of a study to candidates: what is known beforehand, and the trials of a search."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mergetool.errors import RecipeError
from mergetool.study.candidates.align import align_points
from mergetool.study.candidates.ama import ama_points
from mergetool.study.candidates.checkpoints import along_points, ready_points
from mergetool.study.candidates.grid import Candidate
from mergetool.study.candidates.merge import merge_points
from mergetool.study.recipe.study_recipe import CandidateEntry, FromAlign, StudyRecipe


def expand(recipe: StudyRecipe) -> list[Candidate]:
    """Every candidate that is known beforehand: the models, then align candidates, then what is merged from them.

    The trials of a search are not among them: see `trial_points`.

    Raises:
        RecipeError: a key that this method does not have, or a model that it needs and the study lacks.
    """
    models = [Candidate("sft", "sft", "sft", "model", path=recipe.source(recipe.models.sft))]
    if recipe.models.base:
        models.append(Candidate("base", "base", "base", "model", path=recipe.source(recipe.models.base)))
    if isinstance(recipe.models.rlhf, str):
        models.append(Candidate("rlhf", "rlhf", "rlhf", "model", path=recipe.source(recipe.models.rlhf)))
    aligned = _aligned(recipe)
    others: list[Candidate] = []
    for entry in recipe.candidates:
        if entry.align and not entry.search:
            others += along_points(recipe, entry, [one for one in aligned if one.entry == entry.name])
        elif entry.merge and not entry.search:
            others += merge_points(recipe, entry, aligned)
        elif entry.ama:
            others += ama_points(recipe, entry, aligned)
        elif entry.checkpoint is not None:
            others += ready_points(recipe, entry)
        elif entry.recipe is not None:
            others.append(_whole_recipe(recipe, entry))
    found = models + aligned + others
    names = [one.name for one in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RecipeError(f"candidate '{twice}' occurs twice", "remove the repeated value from its list")
    return found


def _aligned(recipe: StudyRecipe) -> list[Candidate]:
    entries = [entry for entry in recipe.candidates if entry.align and not entry.search]
    return [one for entry in entries for one in align_points(recipe, entry)]


def trial_points(recipe: StudyRecipe, entry: CandidateEntry, number: int, values: dict[str, Any]) -> list[Candidate]:
    """One trial of a search: its candidates differ in their seed alone, as those of a grid point do.

    Args:
        number: of the trial, from 1.
        values: what the search chose for the keys that it varies.

    Raises:
        RecipeError: as `expand`.
    """
    grid = entry.merge or entry.align
    assert grid is not None
    fixed = {**grid.model_dump(exclude_unset=True), **values}
    point = entry.model_copy(
        update={
            "name": f"{entry.name} {number}",
            "family": entry.family or entry.name,
            "search": None,
            "merge" if entry.merge else "align": type(grid).model_validate(fixed),
        }
    )
    shown = list(values)
    if entry.merge:
        found = merge_points(recipe, point, _aligned(recipe), shown)
    else:
        found = align_points(recipe, point, shown)
    return [replace(one, entry=entry.name, trial=number) for one in found]


def rlhf_group(recipe: StudyRecipe, candidates: list[Candidate]) -> str | None:
    """The group that is the study's RLHF model: `rlhf`, or the align candidate that makes it."""
    if isinstance(recipe.models.rlhf, FromAlign):
        return next((one.group for one in candidates if one.kind == "align" and one.entry == recipe.models.rlhf.align), None)
    return "rlhf" if recipe.models.rlhf else None


def _whole_recipe(recipe: StudyRecipe, entry: CandidateEntry) -> Candidate:
    """A merge recipe file as one candidate."""
    from mergetool.merge import load_merge_recipe

    path = recipe.source(entry.recipe or "")
    whole = load_merge_recipe(path).to_dict()
    return Candidate(entry.name, entry.name, entry.family or entry.name, "merge", entry.name, recipe=whole)
