"""A merge recipe as one candidate: in a file of its own, or written into the study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mergetool.errors import RecipeError
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.entry import Entry
from mergetool.study.candidates.merge import MergeCandidate
from mergetool.study.candidates.models import FromAlign, StudyModels

PLACES = ("model", "base_model", "relative_to")
"""Keys of a merge recipe that name a checkpoint."""


class RecipeFileCandidate(MergeCandidate):
    """The merge that `recipe: FILE` describes, which names its models itself; or a merge recipe in place of FILE.

    A recipe in the study may call the study's models SFT, RLHF and BASE.
    """

    schema = str | dict[str, Any]
    searchable = False
    needs_rlhf = False

    @classmethod
    def expand(
        cls,
        study: StudyModels,
        entry: Entry,
        grid: str | dict[str, Any],
        trainings: Sequence[Candidate],
        named: Sequence[str] | None = None,
    ) -> list[Candidate]:
        """The one candidate.

        Raises:
            RecipeError: the file is no merge recipe, or the recipe names a model that the study does not have.
        """
        from mergetool.merge import load_merge_recipe

        whole = _placed(grid, study, entry.name) if isinstance(grid, dict) else load_merge_recipe(study.source(grid)).to_dict()
        return [cls(entry.name, entry.name, entry.family_name, entry.name, recipe=whole)]


def _placed(value: Any, study: StudyModels, name: str, key: str = "") -> Any:
    """A recipe whose paths are absolute; the names of the study's models stay."""
    if isinstance(value, dict):
        return {inner: _placed(item, study, name, inner) for inner, item in value.items()}
    if isinstance(value, list):
        return [_placed(item, study, name, key) for item in value]
    if key not in PLACES or not isinstance(value, str):
        return value
    if value in study.sources():
        return value
    if value in ("BASE", "RLHF"):
        made = value == "RLHF" and isinstance(study.models.rlhf, FromAlign)
        hint = "RLHF is made in this study; use a merge: candidate" if made else f"add models.{value.lower()}"
        raise RecipeError(f"candidates: '{name}' names {value}, and the study has no such checkpoint", hint)
    return str(study.source(value))
