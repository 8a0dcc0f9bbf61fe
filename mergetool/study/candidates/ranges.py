"""What a search may vary: a range, or a list of which each trial takes one."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from mergetool.study.candidates.models import Strict

Number = int | float
_SLOPE = {"first", "last"}


class Range(Strict):
    """Every number from `low` to `high`, both included; of whole numbers where `step` is one.

    Attributes:
        log: evenly in the logarithm, for what spans decades.
        step: distance between neighbours; without it any number will do.
    """

    low: Number
    high: Number
    log: bool = False
    step: Number | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> Range:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} has no logarithm; give log: true a low above 0")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step {self.step:g} must be above 0")
        if self.log and self.step is not None and not (self.whole and self.step == 1):
            raise ValueError("log and step exclude each other, but for whole numbers with step: 1")
        if isinstance(self.step, int) and not self.whole:
            raise ValueError("a whole step needs a whole low and high; write step: 1.0 for other numbers")
        return self

    @property
    def whole(self) -> bool:
        """True where it holds whole numbers alone."""
        return all(isinstance(value, int) for value in (self.step, self.low, self.high))


class Slope(Strict):
    """A share for each layer, on a straight line from the first one's to the last one's.

    LiNeS, Wang et al. 2024, arXiv 2410.17146: α + β·(l − 1)/(L − 1) is first α and last α + β; with the two exchanged it is the
    opposite slope, a control. The embeddings go with the first layer, the final norm and the head with the last.
    """

    first: Number
    last: Number

    def shares(self, layers: int) -> list[float]:
        """The share of each of so many layers."""
        return [self.first + (self.last - self.first) * at / max(1, layers - 1) for at in range(layers)]

    @property
    def label(self) -> str:
        """As names and pictures have it."""
        return f"{self.first:g}..{self.last:g}"


class SearchEntry(Strict):
    """How long to search and from which seed.

    Attributes:
        trials: points to try; those of a killed run count.
        seed: of the sampler.
        batch: points that are proposed at a time. It decides what is tried, and how many workers one search can use.
    """

    trials: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)
    batch: int = Field(default=4, ge=1)


def space_of(grid: Any) -> dict[str, Range | list[Any]]:
    """What varies in a merge or align grid that is searched: ranges, and lists as choices.

    Raises:
        ValueError: nothing varies, or a range is no range.
    """
    declared = {key: getattr(grid, key, None) for key in ("weight", "alpha", "beta")}
    found = {key: _space(key, value) for key, value in {**declared, **(grid.model_extra or {})}.items()}
    space = {key: value for key, value in found.items() if value is not None}
    if not space:
        raise ValueError("there is nothing to search; write a range, density: {low: 0.1, high: 1}, or a list of choices")
    return space


def _space(key: str, value: Any) -> Range | list[Any] | None:
    if isinstance(value, dict):
        try:
            return range_of(value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    if isinstance(value, Range):
        return value
    return value if isinstance(value, list) and len(value) > 1 else None


def range_of(value: Any) -> Any:
    """A mapping as a range; anything else as it is.

    Raises:
        ValueError: in plain words, where it is no range.
    """
    if not isinstance(value, dict) or set(value) <= _SLOPE:
        return value
    if unknown := sorted(map(str, set(value) - set(Range.model_fields))):
        raise ValueError(f"'{unknown[0]}' is no part of a range; it has low, high, log, step")
    if missing := [name for name in ("low", "high") if name not in value]:
        raise ValueError(f"the range has no {missing[0]}")
    try:
        return Range.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if not first["loc"]:
            raise ValueError(first["msg"].removeprefix("Value error, ")) from None
        raise ValueError(f"{first['loc'][0]} of the range cannot be {first['input']!r}") from None


def ranges_in(grid: Any) -> list[str]:
    """The keys that hold a range: only a search can take one."""
    declared = {key: getattr(grid, key, None) for key in ("weight", "alpha", "beta")}
    both = {**declared, **(grid.model_extra or {})}
    return [key for key, value in both.items() if isinstance(value, (Range, dict))]


Grid = Number | list[Number]
Shares = Number | Slope | list[Number | Slope | list[Number]]
Searched = Annotated[Grid | Range, BeforeValidator(range_of)]  # a range only where there is a `search`
SearchedShares = Annotated[Shares | Range, BeforeValidator(range_of)]
