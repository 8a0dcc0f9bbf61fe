"""What may be set, and to what: a name, a default, and the values that make sense.

Recipes and optimizers check what they are given against these, so that an option's bounds are written once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Option:
    """Something that a recipe or a parameter group may set; this kind takes any value.

    Attributes:
        name: the key.
        default: what is taken where nothing is set.
        per_model: whether each model of a merge may have a value of its own.
        required: whether there is no default.
        what: what it is, in the words of an error message: "the fraction of entries kept, in (0, 1]".
    """

    name: str
    default: Any = None
    per_model: bool = False
    required: bool = False
    what: str = ""

    @property
    def must(self) -> str:
        """What a value must be: "a number in [0, 1]"."""
        return "anything"

    def read(self, value: Any) -> Any:
        """The value as the program uses it.

        Raises:
            ValueError: it makes no sense.
        """
        return value


@dataclass(frozen=True, slots=True)
class Number(Option):
    """A finite number in [low, high].

    Attributes:
        above: True where `low` itself is too low.
        whole: True where it must be an integer.
        unset: True where None may stand for "not used".
        infinite: True where infinity is a value too.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    whole: bool = False
    unset: bool = False
    infinite: bool = False

    @property
    def must(self) -> str:
        """As `Option.must`."""
        if math.isinf(self.high):
            if math.isinf(self.low):
                return "a finite number"
            return f"{'above' if self.above else 'at least'} {self.low:g}{', or .inf' if self.infinite else ''}"
        return f"a number in {'(' if self.above else '['}{self.low:g}, {self.high:g}]"

    def read(self, value: Any) -> Any:
        """As `Option.read`: a float, an int where it is `whole`."""
        if value is None and self.unset:
            return None
        if isinstance(value, bool) or (self.whole and not isinstance(value, int)):
            raise ValueError(self.must)
        number: Any = value if self.whole else _float(value)
        inside = self.low < number <= self.high if self.above else self.low <= number <= self.high
        if not inside or not (math.isfinite(number) or (self.infinite and number > 0)):
            raise ValueError(self.must)
        return number


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, OverflowError):
        raise ValueError(f"{value!r} is no number") from None


@dataclass(frozen=True, slots=True)
class Truth(Option):
    """True or false."""

    @property
    def must(self) -> str:
        """As `Option.must`."""
        return "true or false"

    def read(self, value: Any) -> bool:
        """As `Option.read`."""
        if not isinstance(value, bool):
            raise ValueError(self.must)
        return value


@dataclass(frozen=True, slots=True)
class Word(Option):
    """One of some words.

    Attributes:
        words: those.
        true, false: the words that mergekit's true and false stand for, where they do.
    """

    words: tuple[str, ...] = ()
    true: str | None = None
    false: str | None = None

    @property
    def must(self) -> str:
        """As `Option.must`."""
        if self.true is not None:
            return f"one of {', '.join(self.words)}, true ({self.true}) or false"
        return " or ".join(self.words) if len(self.words) == 2 else f"one of {', '.join(self.words)}"

    def read(self, value: Any) -> str:
        """As `Option.read`."""
        if isinstance(value, bool):
            value = self.true if value else self.false
        if not isinstance(value, str) or value not in self.words:
            raise ValueError(self.must)
        return value
