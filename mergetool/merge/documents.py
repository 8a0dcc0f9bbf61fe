"""A file of several recipes: merges of merges, each document one of them, as mergekit-multimerge reads it.

A document with a `name` is an intermediate model, and others may take it as a model by that name. The one without a name is
the result. Intermediate models stay beside it, so that the same command finds them done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergetool.config.strict_yaml import documents, parse_yaml, recipe_text
from mergetool.errors import RecipeError
from mergetool.merge.recipe import MergeRecipe, load_merge_recipe, merge_recipe
from mergetool.merge.recipe_source import stdin_text

_MODELS = ("model", "base_model", "relative_to", "lora", "path", "tokenizer_source", "source")
STEPS = ".steps"
"""What the directory of the intermediate models is called after the result's name."""


@dataclass(frozen=True)
class Step:
    """One merge of a file.

    Attributes:
        out: the directory that it makes.
        recipe: its paths resolved.
        needs: the directories of other steps that it takes as models.
    """

    out: Path
    recipe: MergeRecipe
    needs: tuple[Path, ...] = ()


def steps_of(recipe: str | Path, out: str | Path, settings: Sequence[str] = ()) -> list[Step]:
    """The merges of a recipe's file, in an order in which they can be made; one for a recipe of one document.

    Args:
        recipe: as `load_merge_recipe` takes it; a file or ``-`` may hold several documents.
        out: what the document without a name makes. Named ones make ``OUT.steps/NAME``, or ``OUT/NAME`` where all are named.
        settings: values of the recipe set anew, see `config.settings`; of a file with one document.

    Raises:
        RecipeError: a document is wrong, two have one name, or they need one another in a circle.
    """
    out, path = Path(out), Path(recipe)
    text = stdin_text() if str(recipe) == "-" else _text(path)
    parts = documents(text)
    if len(parts) < 2:
        return [Step(out, load_merge_recipe(path, settings))]
    called = "standard input" if str(recipe) == "-" else str(path)
    if settings:
        raise RecipeError(f"{called}: --set sets values of one recipe, and here are {len(parts)}", "edit the file")
    contents = [parse_yaml(part, called) for part in parts]
    names = [content.get("name") for content in contents]
    for name in names:
        if names.count(name) > 1:
            what = "no name" if name is None else f"the name '{name}'"
            raise RecipeError(f"{called}: {names.count(name)} documents have {what}", "give each a `name:`, all but the result")
        if name is not None and (not isinstance(name, str) or Path(name).name != name):
            raise RecipeError(f"{called}: the name {name!r} is no name of a directory", "choose a word")
    root = out.with_name(out.name + STEPS) if None in names else out
    places = {name: out if name is None else root / name for name in names}
    directory = Path.cwd() if str(recipe) == "-" else path.parent
    found = {}
    for name, content in zip(names, contents, strict=True):
        used: dict[str, Path] = {n: p for n, p in places.items() if n is not None}
        needs = tuple(dict.fromkeys(used[one] for one in _named(content, used)))
        made = merge_recipe(_placed(content, used), directory, f"{called}, {name or 'the document without a name'}")
        found[name] = Step(places[name], made, needs)
    return _ordered(list(found.values()), called)


def _text(path: Path) -> str:
    try:
        return recipe_text(path) if path.is_file() else ""
    except RecipeError:
        return ""  # `load_merge_recipe` says so


def _ordered(steps: list[Step], called: str) -> list[Step]:
    """Steps after those that they need; else in the order of the documents, the result last."""
    found: list[Step] = []
    left = sorted(steps, key=lambda step: step.recipe.name is None)
    while left:
        made = {step.out for step in found}
        ready = next((step for step in left if made.issuperset(step.needs)), None)
        if ready is None:
            names = ", ".join(str(step.recipe.name or "the result") for step in left)
            raise RecipeError(f"{called}: {names} need one another", "let one of them take a model that is there")
        found.append(ready)
        left.remove(ready)
    return found


def _references(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _references(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _references(item, key)
    elif isinstance(value, str) and key in _MODELS:
        yield from value.split("+")


def _named(content: Mapping[str, Any], places: Mapping[str, Path]) -> list[str]:
    return [part for part in _references(content) if part in places]


def _placed(value: Any, places: Mapping[str, Path], key: str = "") -> Any:
    """A recipe with the directories of other documents in place of their names."""
    if isinstance(value, Mapping):
        return {name: _placed(item, places, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_placed(item, places, key) for item in value]
    if isinstance(value, str) and key in _MODELS:
        return "+".join(str(places[part].absolute()) if part in places else part for part in value.split("+"))
    return value
