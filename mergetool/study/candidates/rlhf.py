"""Which candidates are the study's RLHF model, where the study makes it itself."""

from __future__ import annotations

from collections.abc import Sequence

from mergetool.errors import RecipeError
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.models import FromAlign, StudyModels


def rlhf_runs(study: StudyModels, trainings: Sequence[Candidate]) -> list[Candidate | None]:
    """The align candidates, one a seed, that make the study's RLHF model; [None] where it is a checkpoint.

    Raises:
        RecipeError: they differ in more than their seed.
    """
    if not isinstance(study.models.rlhf, FromAlign):
        return [None]
    found = [one for one in trainings if one.entry == study.models.rlhf.align]
    if len({one.group for one in found}) > 1:
        raise RecipeError(
            f"models.rlhf.align: '{study.models.rlhf.align}' is a grid, and RLHF is one model",
            "give it one value for everything but seed",
        )
    return list(found)


def rlhf_group(study: StudyModels, candidates: Sequence[Candidate]) -> str | None:
    """The group that is the study's RLHF model: `rlhf`, or the align candidate that makes it."""
    rlhf = study.models.rlhf
    if isinstance(rlhf, FromAlign):
        return next((one.group for one in candidates if one.is_training and one.entry == rlhf.align), None)
    return "rlhf" if rlhf else None
