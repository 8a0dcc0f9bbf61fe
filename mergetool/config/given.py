"""A recipe as a caller of the library gives it: a file, plain values, or read already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mergetool.errors import RecipeError

if TYPE_CHECKING:
    from pydantic import BaseModel

    Recipe = TypeVar("Recipe", bound=BaseModel)


def recipe_given(
    given: Recipe | Mapping[str, Any] | str | Path,
    kind: type[Recipe],
    load: Callable[[Path], Recipe],
    make: Callable[[Mapping[str, Any]], Recipe],
) -> Recipe:
    """The recipe in any of its three forms, read and checked.

    Args:
        given: a YAML file's path; what the YAML would say, relative paths in it starting from the working directory; or
            a recipe that is returned as it is.
        kind: the recipe's class.
        load: makes one of a file.
        make: makes one of plain values.

    Raises:
        RecipeError: it is none of the three, or not a valid recipe.
    """
    if isinstance(given, kind):
        return given
    if isinstance(given, Mapping):
        return make(given)
    if isinstance(given, str | Path):
        return load(Path(given))
    raise RecipeError(
        f"a {type(given).__name__} is no {kind.__name__}",
        "give a YAML file's path, a mapping of what it would say, or that class",
    )
