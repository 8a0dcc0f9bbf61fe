"""The table of candidate kinds: what a study may write in a line of `candidates`.

A kind is one class in a file of its own, and one row here.
"""

from __future__ import annotations

from typing import Any

from pydantic import create_model, model_validator

from mergetool.study.candidates.align import AlignCandidate
from mergetool.study.candidates.ama import AmaCandidate
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.checkpoint import CheckpointCandidate
from mergetool.study.candidates.entry import Entry
from mergetool.study.candidates.merge import MergeCandidate
from mergetool.study.candidates.model import ModelCandidate
from mergetool.study.candidates.ranges import ranges_in
from mergetool.study.candidates.recipe_file import RecipeFileCandidate
from mergetool.study.candidates.run_checkpoint import RunCheckpoint
from mergetool.study.candidates.soup import SoupCandidate

KINDS: dict[str, type[Candidate]] = {
    "merge": MergeCandidate,
    "align": AlignCandidate,
    "ama": AmaCandidate,
    "checkpoint": CheckpointCandidate,
    "recipe": RecipeFileCandidate,
    "soup": SoupCandidate,
}
"""Key of a candidate in a study -> its class."""

OF_ROW: dict[str, type[Candidate]] = {one.kind: one for one in (ModelCandidate, RunCheckpoint, *KINDS.values())}
"""`kind` of a line of results -> a class of that kind."""

_keys: dict[str, Any] = {key: (kind.schema | None, None) for key, kind in KINDS.items()}


class CandidateEntry(create_model("CandidateKeys", __base__=Entry, **_keys)):
    """One line of `candidates`: a name and exactly one key of KINDS.

    search: with a kind that is searchable: its ranges and lists are searched instead of multiplied.
    """

    @model_validator(mode="after")
    def _one_kind(self) -> CandidateEntry:
        given = [key for key in KINDS if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"'{self.name}' has {found} of {', '.join(KINDS)}; give exactly one")
        return self

    @model_validator(mode="after")
    def _searched_or_multiplied(self) -> CandidateEntry:
        if self.search is None:
            if self.candidate_class.searchable and (key := next(iter(ranges_in(self.grid)), None)):
                raise ValueError(f"'{self.name}': {key} is a range; add search: {{trials: 40}}, or give a list")
        elif not self.candidate_class.searchable:
            able = " nor ".join(key for key, kind in KINDS.items() if kind.searchable)
            raise ValueError(f"'{self.name}' has a search and neither {able}; there is nothing to vary")
        else:
            try:
                self.candidate_class.search_space(self.grid)
            except ValueError as error:
                raise ValueError(f"'{self.name}': {error}") from None
        return self

    @property
    def key(self) -> str:
        """The key of its kind, as the recipe has it."""
        return next(key for key in KINDS if getattr(self, key) is not None)

    @property
    def candidate_class(self) -> type[Candidate]:
        return KINDS[self.key]

    @property
    def grid(self) -> Any:
        """What the recipe has under that key."""
        return getattr(self, self.key)
