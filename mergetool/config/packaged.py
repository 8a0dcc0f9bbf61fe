"""Where the recipes of the package lie: `recipes/` of the repository, or `mergetool/recipes/` of a wheel."""

from __future__ import annotations

from pathlib import Path

from mergetool.errors import RecipeError, nearest

KINDS = ("merge", "align", "ama", "study")
_HERE = Path(__file__).parent.parent


def recipes_root() -> Path:
    """The directory that holds merge/, align/, ama/ and study/.

    Raises:
        RecipeError: the installation has none.
    """
    for place in (_HERE / "recipes", _HERE.parent / "recipes"):
        if any((place / kind).is_dir() for kind in KINDS):
            return place
    raise RecipeError("this installation has no recipes", "install the wheel, or run from the repository")


def list_recipes() -> list[tuple[str, str]]:
    """(kind, name) of every recipe, sorted; the name has no ending."""
    root = recipes_root()
    return [(kind, path.stem) for kind in KINDS for path in sorted((root / kind).glob("*.yaml"))]


def recipe_path(kind: str, name: str) -> Path:
    """The file of one recipe.

    Raises:
        RecipeError: there is none of that kind and name; the message names the nearest one.
    """
    path = recipes_root() / kind / f"{name}.yaml"
    if (kind, name) not in list_recipes():
        known = [f"{one}/{other}" for one, other in list_recipes()]
        raise RecipeError(f"no recipe '{kind}/{name}'", nearest(f"{kind}/{name}", known))
    return path
