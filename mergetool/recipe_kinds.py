"""The four languages of recipes: which one a recipe is written in, how it is checked without weights, and its JSON Schema."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from mergetool.config.given import recipe_given
from mergetool.config.strict_yaml import documents, load_yaml, recipe_text
from mergetool.errors import RecipeError, nearest

if TYPE_CHECKING:
    from pydantic_core.core_schema import ModelSchema

Recipe = TypeVar("Recipe", bound=BaseModel)


@dataclass(frozen=True)
class _Language(Generic[Recipe]):
    """What reads and checks recipes of one kind."""

    recipe: type[Recipe]
    load: Callable[[Path], Recipe]
    make: Callable[[Mapping[str, Any]], Recipe]
    facts: Callable[[Recipe], Mapping[str, Any]]

    def check(self, given: Any) -> dict[str, Any]:
        return dict(self.facts(recipe_given(given, self.recipe, self.load, self.make)))


def _study() -> _Language:
    from mergetool.study.recipe.check import check_study
    from mergetool.study.recipe.study_recipe import StudyRecipe, load_study_recipe, make_study

    return _Language(StudyRecipe, load_study_recipe, make_study, check_study)


def _ama() -> _Language:
    from mergetool.ama.recipe import AmaRecipe, ama_recipe, load_ama_recipe
    from mergetool.ama.run import check_ama

    return _Language(AmaRecipe, load_ama_recipe, ama_recipe, check_ama)


def _merge() -> _Language:
    from mergetool.merge.describe import describe
    from mergetool.merge.planner import plan_merge
    from mergetool.merge.recipe import MergeRecipe, load_merge_recipe, merge_recipe

    return _Language(MergeRecipe, load_merge_recipe, merge_recipe, lambda recipe: describe(plan_merge(recipe)))


def _align() -> _Language:
    from mergetool.align.check import rehearsed_check
    from mergetool.align.recipe import AlignRecipe, align_recipe, load_align_recipe

    return _Language(AlignRecipe, load_align_recipe, align_recipe, rehearsed_check)


# kind -> the keys that tell it, any one of which is enough; the first kind that has one. A study has `models` as a merge has.
_MARKS = {
    "study": ("candidates",),
    "ama": ("rlhf_model",),
    "merge": ("merge_method", "models", "slices"),
    "align": ("sft_model", "merging", "algorithm", "data", "training"),
}
_LANGUAGES: dict[str, Callable[[], _Language]] = {"study": _study, "ama": _ama, "merge": _merge, "align": _align}


def kind_of(content: Mapping[str, Any], name: str = "recipe") -> str:
    """Which of the languages a recipe is written in: merge, align, ama or study.

    Args:
        content: what the YAML says.
        name: opens the error message.

    Raises:
        RecipeError: no key tells; the nearest one is named.
    """
    found = next((kind for kind, keys in _MARKS.items() if any(key in content for key in keys)), None)
    if found is None:
        first = str(next(iter(content), ""))
        raise RecipeError(
            f"{name}: neither merge_method, nor sft_model, nor candidates is given",
            f"'{first}': " + nearest(first, [key for keys in _MARKS.values() for key in keys]),
        )
    return found


def _content(given: str | Path) -> dict[str, Any]:
    """A recipe's keys, wherever it lies; see `mergetool.merge.recipe_source`."""
    from mergetool.merge.recipe_source import recipe_source

    path = Path(given)
    return load_yaml(path) if path.is_file() and path.suffix != ".md" else recipe_source(str(given)).content


def _several(path: str | Path) -> list[dict[str, Any]]:
    """The facts of each merge of a file of several; one that needs what another one makes is only read."""
    from mergetool.merge.documents import steps_of

    file = Path(path)
    if not file.is_file() or len(documents(recipe_text(file))) < 2:
        return []
    found, facts = [], _merge().facts
    for step in steps_of(path, file.with_suffix("")):
        there = all(one.exists() for one in step.needs)
        needs = [one.name for one in step.needs]
        found.append({"document": step.recipe.name, **(facts(step.recipe) if there else {"needs": needs})})
    return found


def check(recipe: BaseModel | Mapping[str, Any] | str | Path) -> dict[str, Any]:
    """Everything about a recipe that can be known from headers and data files; no weight is read.

    Args:
        recipe: a merge, align, AMA or study recipe: a YAML file's path, plain values (relative paths then start from the
            working directory), or read already.

    Returns:
        What ``mergetool check --json`` prints: `recipe` (its path, or "recipe"), `kind`, and the facts of that kind.

    Raises:
        MergetoolError: the first thing that would stop the run, in one line.
    """
    if isinstance(recipe, BaseModel):
        kind = next((kind for kind, language in _LANGUAGES.items() if isinstance(recipe, language().recipe)), None)
        if kind is None:
            raise RecipeError(f"a {type(recipe).__name__} is no recipe", "give a merge, align, AMA or study recipe")
        return {"recipe": "recipe", "kind": kind, **_LANGUAGES[kind]().check(recipe)}
    name = "recipe" if isinstance(recipe, Mapping) else str(recipe)
    if not isinstance(recipe, Mapping) and len(several := _several(recipe)) > 1:
        return {"recipe": name, "kind": "merge", "documents": several}
    kind = kind_of(recipe if isinstance(recipe, Mapping) else _content(recipe), name)
    return {"recipe": name, "kind": kind, **_LANGUAGES[kind]().check(recipe)}


class _Documented(GenerateJsonSchema):
    """Gives each key the text that its model's docstring has for it, so that an editor shows it."""

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        summary, _, attributes = inspect.cleandoc(model.__doc__ or "").partition("\n\nAttributes:\n")
        made["description"] = " ".join(summary.split())
        for names, text in re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8,}.*)*)", attributes, re.MULTILINE):
            for name in names.split(", "):
                field = model.model_fields.get(name)
                key = (field and field.alias) or name
                if key in made.get("properties", {}):
                    made["properties"][key]["description"] = " ".join(text.split())
        return made


def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one language of recipes, for editors; what `mergetool schema` prints.

    A schema knows keys, types and ranges. What depends on several keys at once, or on files, is for `check`.

    Args:
        kind: merge, align, ama or study.

    Raises:
        RecipeError: there is no such kind.
    """
    if kind not in _LANGUAGES:
        raise RecipeError(f"no recipes of kind '{kind}'", nearest(kind, list(_LANGUAGES)))
    found = _LANGUAGES[kind]().recipe.model_json_schema(schema_generator=_Documented)
    return {"$schema": GenerateJsonSchema.schema_dialect, **found, "title": f"mergetool {kind} recipe"}
