"""From a recipe to a plan: what will be read, computed and written, for every tensor.

Everything that can be known without weights is decided here, and every error that headers can show is raised here;
the engine only carries it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergetool.architecture.differences import config_differences
from mergetool.architecture.differences import said as said_of
from mergetool.architecture.match import match
from mergetool.checkpoint.adapter import ADAPTER
from mergetool.checkpoint.dequantised import must_get_a_dtype, must_not_be_codes
from mergetool.checkpoint.in_form import in_form_of
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.model_files import check_beside
from mergetool.checkpoint.open import layout_of
from mergetool.checkpoint.place import Directory
from mergetool.config.strict_yaml import validate
from mergetool.errors import CheckpointError, RecipeError, nearest
from mergetool.hub.model_reference import is_local
from mergetool.hub.references import open_layout
from mergetool.merge.adapter_plan import must_fit_an_adapter
from mergetool.merge.dialect import PARAMETERS
from mergetool.merge.mergekit import MERGEKIT_METHODS
from mergetool.merge.plan import Plan, Source
from mergetool.merge.recipe import ADAPTER_OUTPUT, MergeRecipe, ModelEntry
from mergetool.merge.terms import tensor_plans
from mergetool.merge.vocabulary import plan_vocabulary
from mergetool.methods import METHODS, Method


def plan_merge(recipe: MergeRecipe, engine: str = "auto", allow_pickle: bool = False, allow_differences: bool = False) -> Plan:
    """Work out what a recipe means, from headers alone: of a Hub repository no weights are fetched.

    Args:
        recipe: validated; its paths resolved.
        engine: ``auto`` (ours where every feature is ours), ``native``, or ``mergekit``.
        allow_pickle: let a Hub repository that has no safetensors pass; see `open_layout`.
        allow_differences: let models pass whose configurations use weights of one shape in different ways (rope, heads,
            activation, norm, windows); the result has the base's configuration.

    Raises:
        RecipeError: unknown method or parameter, a value out of range, a feature that the engine asked for lacks.
        CheckpointError: an input is missing, damaged, or does not fit the others.
    """
    said = recipe.notes
    recipe = _whole_models(recipe, allow_pickle)
    method = METHODS.get(recipe.merge_method)
    if method is None and recipe.merge_method not in MERGEKIT_METHODS:
        raise RecipeError(
            f"unknown merge_method '{recipe.merge_method}'", nearest(recipe.merge_method, [*METHODS, *MERGEKIT_METHODS])
        )
    reason = "asked for" if engine == "mergekit" else _not_native(recipe, method)
    if reason:
        if engine == "native":
            raise RecipeError(f"the native engine cannot run this recipe: {reason}", "use --engine auto")
        for name in references(recipe.to_dict()):
            for layout in _local(name):
                must_not_be_codes(layout)
        # mergekit reads headers when it runs; what it is to be given from the Hub is looked at now
        remote = [name for name in references(recipe.to_dict()) if not all(map(is_local, name.split("+")))]
        found = tuple(Source(name, open_layout(name, allow_pickle)) for name in remote)
        for source in found:
            must_not_be_codes(source.layout)
        plan = Plan(recipe, "mergekit", reason, method, found, 0, None)
        if recipe.output == ADAPTER_OUTPUT:
            must_fit_an_adapter(plan)
        return plan
    assert method is not None  # _not_native answered for a method that is not in the table
    unread = _check_shape_of_recipe(recipe, method)
    names = _distinct_names(recipe)
    layouts = [open_layout(name, allow_pickle) for name in names]
    index = {name: i for i, name in enumerate(names)}
    base = index[recipe.base_model] if recipe.base_model else index[recipe.models[0].model]
    for layout in layouts:
        must_get_a_dtype(layout, recipe.out_dtype or recipe.dtype)
    layouts = [in_form_of(layout, layouts[base]) for layout in layouts]
    tokenizer, vocabulary, layouts = plan_vocabulary(recipe, names, layouts, base)
    if (place := layouts[base].place) is not None:
        check_beside(place, tokenizer)
    found = match(layouts, base)
    differences = _used_alike(layouts, base, allow_differences)
    sources = tuple(Source(*one) for one in zip(names, layouts, found.stands_for, strict=True))
    tensors = tensor_plans(recipe, method, sources, index, base, found)
    notes = (*said, *unread, *found.notes(layouts[base].name), *differences)
    plan = Plan(recipe, "native", "", method, sources, base, tokenizer, tensors, found.added, notes, vocabulary)
    if recipe.output == ADAPTER_OUTPUT:
        must_fit_an_adapter(plan)
    return plan


def _used_alike(layouts: Sequence[Layout], base: int, allow: bool) -> list[str]:
    """Refuse models that would use the same weights differently, or a line on each where that is allowed."""
    lines = []
    for layout in layouts:
        found = config_differences(layouts[base].config, layout.config)
        if not found:
            continue
        line = f"{layout.name} uses its weights in another way than {layouts[base].name}: {said_of(found)}"
        if not allow:
            raise CheckpointError(line, "merge models that agree, or pass --allow-config-differences to keep the base's")
        lines.append(line)
    return lines


def _local(name: str) -> list[Layout]:
    """The layouts of those directories of this disk that a name of a recipe stands for and that hold models."""
    models = [
        part for part in name.split("+") if (Path(part) / "config.json").is_file() and not (Path(part) / ADAPTER).exists()
    ]
    return [layout_of(Directory(part)) for part in models if any(Path(part).glob("*.safetensors"))]


def references(value: Any, key: str = "") -> list[str]:
    """Every model that a recipe names, in whatever part of mergekit's dialect."""
    if isinstance(value, dict):
        inner = [references(item, name) for name, item in value.items()]
    elif isinstance(value, list):
        inner = [references(item, key) for item in value]
    else:
        named = key in ("model", "base_model", "relative_to", "lora", "path", "tokenizer_source")
        return [value] if named and isinstance(value, str) else []
    return list(dict.fromkeys(name for names in inner for name in names))


def _whole_models(recipe: MergeRecipe, allow_pickle: bool) -> MergeRecipe:
    """A recipe in slices form that takes one slice, every layer of each model, says the same as its models form."""
    if not recipe.slices or len(recipe.slices) != 1 or set(recipe.slices[0]) - {"sources", "parameters"}:
        return recipe
    entries, parameters = [], recipe.slices[0].get("parameters") or {}
    for source in recipe.slices[0].get("sources") or []:
        if not isinstance(source, dict) or set(source) - {"model", "layer_range", "parameters"} or "model" not in source:
            return recipe
        entry = validate(ModelEntry, {k: v for k, v in source.items() if k != "layer_range"}, "slices[0].sources")
        layers = open_layout(entry.model, allow_pickle).config.get("num_hidden_layers")
        if source.get("layer_range") != [0, layers]:
            return recipe
        entries.append(entry)
    models = [entry.model_dump(exclude_none=True) for entry in entries]
    content = {**recipe.to_dict(), "models": models, "parameters": {**recipe.parameters, **parameters}}
    content.pop("slices")
    return validate(MergeRecipe, content, "slices")


def _not_native(recipe: MergeRecipe, method: Method | None) -> str:
    """Why a recipe is not ours to run; empty where it is."""
    if method is None:
        return f"merge_method {recipe.merge_method}"
    for key in ("slices", "modules"):
        if getattr(recipe, key):
            return key
    if recipe.chat_template and "{" not in recipe.chat_template:
        return f"chat_template {recipe.chat_template}"
    return ""


def _check_shape_of_recipe(recipe: MergeRecipe, method: Method) -> list[str]:
    """Refuse what the method cannot do; a line on parameters that it does not read, though mergekit knows them."""
    if method.needs_base and not recipe.base_model:
        raise RecipeError(f"merge_method {method.name} needs base_model", "add `base_model:` to the recipe")
    if method.of_models:
        relative = next((i for i, m in enumerate(recipe.models) if m.relative_to), None)
        if relative is not None:
            raise RecipeError(
                f"models[{relative}].relative_to has no meaning for {method.name}, which merges models, not deltas",
                "remove it, or use task_arithmetic, ties or a dare method",
            )
    if method.consensus.pair:
        others = {m.model for m in recipe.models} - {recipe.base_model}
        if len(others) != 1:
            raise RecipeError(
                f"{method.name} takes base_model and one other model, found {len(others)} others", "list exactly two"
            )
    unread: dict[str, None] = {}
    places = [("parameters", recipe.parameters)]
    places += [(f"models[{i}].parameters", m.parameters) for i, m in enumerate(recipe.models)]
    for place, parameters in places:
        for name in parameters:
            if name in PARAMETERS - method.parameters:
                unread[name] = None
            elif name not in method.parameters:
                raise RecipeError(f"{place}.{name}: {method.name} has no parameter '{name}'", nearest(name, method.parameters))
    return [f"{method.name} does not read {', '.join(unread)}: left out"] if unread else []


def _distinct_names(recipe: MergeRecipe) -> list[str]:
    names = [recipe.base_model] if recipe.base_model else []
    for entry in recipe.models:
        names += [entry.model] + ([entry.relative_to] if entry.relative_to else [])
    return list(dict.fromkeys(names))
