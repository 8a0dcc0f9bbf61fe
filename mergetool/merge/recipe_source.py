"""Where a recipe comes from: a file, standard input, a recipe of the package, or the model that was made by it."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from textwrap import dedent
from typing import Any

from mergetool import reading
from mergetool.checkpoint.place import Place
from mergetool.config.packaged import list_recipes, recipe_path
from mergetool.config.sources import looks_like_hub_id
from mergetool.config.strict_yaml import anchored_keys, load_yaml, parse_yaml, recipe_text
from mergetool.errors import RecipeError
from mergetool.hub.references import open_place

_CONFIGS = ("mergekit_config.yml", "mergekit_config.yaml")
_MANIFEST, _CARD = "mergetool.json", "README.md"
_MERGE = re.compile(r"^merge_method:[ \t]*(\w+)", re.MULTILINE)
_FENCED = re.compile(r"^[ \t]*(`{3,}|~{3,})([^\n]*)\n(.*?)^[ \t]*\1", re.DOTALL | re.MULTILINE)
_LANGUAGES = ("", "yaml", "yml", "text", "txt")


@dataclass(frozen=True)
class RecipeSource:
    """A recipe's content.

    Attributes:
        content: as YAML gives it.
        anchored: keys at its top that carry an anchor.
        directory: relative paths start here.
        called: what messages call it.
    """

    content: dict[str, Any]
    anchored: frozenset[str]
    directory: Path
    called: str


@lru_cache(maxsize=1)
def stdin_text() -> str:
    """All of standard input, which can be read once: `check` looks at a recipe twice."""
    return sys.stdin.read()


def recipe_source(text: str) -> RecipeSource:
    """Find and read a recipe.

    Args:
        text: a path; ``-``; a name that `mergetool recipes ls` prints; a directory or ``org/name`` of a merged model, whose
            mergekit_config.yml, mergetool.json or card has it.

    Raises:
        RecipeError: there is none, or it is no YAML.
    """
    path = Path(text)
    if text == "-":
        return _parsed(stdin_text(), Path.cwd(), "standard input")
    if path.suffix == ".md" and path.is_file():
        return _of_card(recipe_text(path), path.parent, text)
    if path.is_file():
        return RecipeSource(load_yaml(path), anchored_keys(recipe_text(path)), path.parent, text)
    if path.is_dir():
        return _of_model(open_place(path), text)
    named = [(kind, name) for kind, name in list_recipes() if text in (name, f"{kind}/{name}")]
    if len(named) == 1 or ("merge", text) in named:
        kind, name = named[0] if len(named) == 1 else ("merge", text)
        return recipe_source(str(recipe_path(kind, name)))
    if looks_like_hub_id(text):
        return _of_model(open_place(text), text)
    return RecipeSource(load_yaml(path), frozenset(), path.parent, text)  # which says that there is no such file


def _of_model(place: Place, called: str) -> RecipeSource:
    files = place.files()
    for name in _CONFIGS:
        if name in files:
            return _parsed(recipe_text(place.path(name)), place.directory, f"{called}/{name}")
    if _MANIFEST in files:
        try:
            recipe = reading.parsed_file(place.path(_MANIFEST)).get("recipe")
        except (OSError, ValueError, AttributeError):
            recipe = None
        if isinstance(recipe, dict) and "merge_method" in recipe:
            return RecipeSource(recipe, frozenset(), place.directory, f"{called}/{_MANIFEST}")
    if _CARD in files:
        return _of_card(recipe_text(place.path(_CARD)), place.directory, f"{called}/{_CARD}")
    raise RecipeError(
        f"{called}: has no recipe of a merge ({', '.join((*_CONFIGS[:1], _MANIFEST, _CARD))})", "give the path of a YAML recipe"
    )


def _of_card(text: str, directory: Path, called: str) -> RecipeSource:
    blocks = [dedent(block) for _, language, block in _FENCED.findall(text) if language.strip().lower() in _LANGUAGES]
    found = list(dict.fromkeys(block for block in blocks if _MERGE.search(block)))
    if not found:
        raise RecipeError(f"{called}: its card has no recipe in a ```yaml block", "give the path of a YAML recipe")
    if len(found) > 1:
        methods = ", ".join(m[1] for block in found for m in [_MERGE.search(block)] if m)
        raise RecipeError(
            f"{called}: its card has {len(found)} recipes ({methods})",
            "save the one that is meant as a file, or several as its documents, with `---` between them and a `name:` each",
        )
    return _parsed(found[0], directory, called)


def _parsed(text: str, directory: Path, called: str) -> RecipeSource:
    return RecipeSource(parse_yaml(text, called), anchored_keys(text), directory, called)
