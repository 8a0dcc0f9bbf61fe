"""What every line of `candidates` has, whatever its kind."""

from __future__ import annotations

from pydantic import Field

from mergetool.study.candidates.models import Strict
from mergetool.study.candidates.ranges import SearchEntry


class Entry(Strict):
    """One line of `candidates`, but for the key that says of which kind it is.

    Attributes:
        name: opens the name of every candidate of it.
        family: one colour in the picture; without it the name.
        search: how to search what its grid spans; without it the grid is multiplied.
    """

    name: str = Field(min_length=1)
    family: str | None = None
    search: SearchEntry | None = None

    @property
    def family_name(self) -> str:
        return self.family or self.name
