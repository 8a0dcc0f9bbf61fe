"""A merge recipe that lies in a file of its own, as one candidate."""

from __future__ import annotations

from collections.abc import Sequence

from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.entry import Entry
from mergetool.study.candidates.merge import MergeCandidate
from mergetool.study.candidates.models import StudyModels


class RecipeFileCandidate(MergeCandidate):
    """The merge that `recipe: FILE` describes; it names its models itself."""

    schema = str
    searchable = False
    needs_rlhf = False

    @classmethod
    def expand(
        cls,
        study: StudyModels,
        entry: Entry,
        grid: str,
        trainings: Sequence[Candidate],
        named: Sequence[str] | None = None,
    ) -> list[Candidate]:
        from mergetool.merge import load_merge_recipe

        whole = load_merge_recipe(study.source(grid)).to_dict()
        return [cls(entry.name, entry.name, entry.family_name, entry.name, recipe=whole)]
