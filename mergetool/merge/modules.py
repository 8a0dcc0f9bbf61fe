"""Recipes in modules form: parts of a model, each merged of models of its own. A part is planned as a recipe in models form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mergetool.architecture.modules import REST, parts_of
from mergetool.architecture.roles import depth_of
from mergetool.checkpoint.layout import Layout
from mergetool.errors import RecipeError
from mergetool.merge.plan import TensorPlan
from mergetool.merge.recipe import MergeRecipe
from mergetool.merge.recipe_entries import ModelEntry, ModuleEntry
from mergetool.merge.slices import over
from mergetool.methods import Method


def without_modules(recipe: MergeRecipe) -> MergeRecipe:
    """A recipe whose only module is the whole model says the same without it."""
    if not recipe.modules or list(recipe.modules) != [REST]:
        return recipe
    module = recipe.modules[REST]
    parameters = over(module.parameters, recipe.parameters)
    return recipe.model_copy(
        update={"modules": None, "models": module.models, "slices": module.slices, "parameters": parameters}
    )


def recipe_of(recipe: MergeRecipe, word: str, method: Method) -> MergeRecipe:
    """The recipe of one module, parameters of both levels in one; without models where the part stays the base's."""
    module = (recipe.modules or {})[word]
    parameters = over(module.parameters, recipe.parameters)
    own = all(entry.model == recipe.base_model and not entry.relative_to for entry in module.models)
    stays = own and (method.consensus.pair or not method.merges_models(recipe.base_model))
    return recipe.model_copy(update={"modules": None, "models": [] if stays else module.models, "parameters": parameters})


def with_roles(plan: TensorPlan, word: str) -> TensorPlan:
    """A tensor's plan whose terms are those of one module of several."""
    return replace(plan, terms=tuple(replace(term, role=f"modules.{word}.{term.role}") for term in plan.terms))


def whole_modules(recipe: MergeRecipe, layout_of: Callable[[str], Layout]) -> MergeRecipe:
    """A module of one slice, every layer of each model, says the same as its models form.

    Args:
        recipe: in modules form.
        layout_of: name of a model -> its headers.

    Raises:
        RecipeError: a module stacks layers.
    """
    modules = dict(recipe.modules or {})
    for word, module in modules.items():
        if module.slices:
            modules[word] = _whole(word, module, list(modules), recipe.base_model, layout_of)
    return recipe.model_copy(update={"modules": modules})


def _whole(
    word: str, module: ModuleEntry, words: list[str], base: str | None, layout_of: Callable[[str], Layout]
) -> ModuleEntry:
    only, *others = module.slices or []
    entries = []
    for source in only.sources:
        layout = layout_of(source.model)
        parts, stacks = parts_of(layout, words), depth_of(layout)
        within = {place.stack for name, part in parts.items() if part == word and (place := stacks.place(name)) is not None}
        if (
            others
            or only.base_model not in (None, base)
            or [source.layer_range] != [(0, stacks.depth[stack]) for stack in within if stack in stacks.depth]
        ):
            raise RecipeError(
                f"modules.{word}.slices: layers of one part of several are not stacked here",
                "merge whole parts (`models:`), or run this recipe with --engine mergekit",
            )
        kept = {"relative_to": source.relative_to, "parameters": source.parameters, "calibration": source.calibration}
        entries.append(ModelEntry(model=source.model, **kept))
    return ModuleEntry(models=entries, parameters=over(only.parameters, module.parameters))
