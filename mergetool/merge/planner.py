"""From a recipe to a plan: what will be read, computed and written, for every tensor.

Everything that can be known without weights is decided here, and every error that headers can show is raised here;
the engine only carries it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mergetool.architecture.differences import config_differences
from mergetool.architecture.differences import said as said_of
from mergetool.architecture.match import match
from mergetool.architecture.modules import parts_of
from mergetool.architecture.roles import depth_of
from mergetool.checkpoint.adapter import ADAPTER
from mergetool.checkpoint.dequantised import must_get_a_dtype, must_not_be_codes
from mergetool.checkpoint.in_form import in_form_of
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.model_files import check_beside
from mergetool.checkpoint.open import layout_of
from mergetool.checkpoint.place import Directory
from mergetool.errors import CheckpointError, RecipeError, nearest
from mergetool.hub.model_reference import is_local
from mergetool.hub.references import open_layout
from mergetool.merge.adapter_plan import must_fit_an_adapter
from mergetool.merge.chat_template import chat_template
from mergetool.merge.demands import must_suit
from mergetool.merge.modules import recipe_of, whole_modules, with_roles, without_modules
from mergetool.merge.plan import Plan, Source, TensorPlan
from mergetool.merge.recipe import ADAPTER_OUTPUT, MergeRecipe
from mergetool.merge.recipe_entries import ModelEntry
from mergetool.merge.slices import Slice, Stacking, over, slices_of
from mergetool.merge.terms import Called, must_weigh, tensor_plans
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
    method = METHODS.get(recipe.merge_method)
    if method is None and engine != "mergekit":
        hint = "a method of a later mergekit runs with --engine mergekit"
        raise RecipeError(
            f"unknown merge_method '{recipe.merge_method}'", f"{nearest(recipe.merge_method, [*METHODS])}; {hint}"
        )
    if engine == "mergekit":
        return _fitting(_handed_over(recipe, method, "asked for", allow_pickle))
    assert method is not None  # what is not in the table was refused
    recipe = _whole_models(without_modules(recipe), allow_pickle)
    if recipe.modules:
        recipe = whole_modules(recipe, lambda name: open_layout(name, allow_pickle))
    slices = slices_of(recipe, method)
    parts = [one.recipe for one in slices] or [recipe_of(recipe, name, method) for name in recipe.modules or ()]
    checked = [must_suit(method, one, recipe) for one in parts if one.models] or [must_suit(method, recipe)]
    unread = list(dict.fromkeys(line for lines in checked for line in lines))
    names = _distinct_names(recipe, slices)
    layouts = [open_layout(name, allow_pickle) for name in names]
    base = names.index(recipe.base_model or names[0])
    for layout in layouts:
        must_get_a_dtype(layout, recipe.out_dtype or recipe.dtype)
    layouts = [in_form_of(layout, layouts[base]) for layout in layouts]
    tokenizer, vocabulary, layouts = plan_vocabulary(recipe, names, layouts, base)
    if (place := layouts[base].place) is not None:
        check_beside(place, tokenizer)
    if slices:
        made = _stacked(Stacking(slices, names, layouts), recipe, method, base, allow_differences)
    elif recipe.modules:
        made = _of_modules(recipe, method, names, layouts, base, allow_differences)
    else:
        made = _whole(recipe, method, names, layouts, base, allow_differences)
    must_weigh(made.tensors)
    if recipe.calibration is not None and method.projects:
        from mergetool.merge.projected import rules_of, shapes_of  # with torch, which a plan does without elsewhere

        recipe.calibration.check(shapes_of(made.tensors, vocabulary), rules_of(made.tensors))
    if method.consensus.calibrated:
        from mergetool.merge.obtained import check_own

        made.notes.extend(check_own(recipe, method, made.tensors, made.sources, vocabulary))
    plan = Plan(
        recipe, "native", "", method, made.sources, base, tokenizer, made.tensors, made.added,
        notes=(*said, *unread, *made.notes), vocabulary=vocabulary, config=made.config,
        chat_template=chat_template(recipe.chat_template, [one.place for one in layouts if one.place is not None]),
    )  # fmt: skip
    return _fitting(plan)


def _fitting(plan: Plan) -> Plan:
    """The plan, where what it makes can be written as the recipe says."""
    if plan.recipe.output == ADAPTER_OUTPUT:
        must_fit_an_adapter(plan)
    return plan


def _handed_over(recipe: MergeRecipe, method: Method | None, reason: str, allow_pickle: bool) -> Plan:
    """A plan for mergekit, which reads headers when it runs; what it is to be given from the Hub is looked at now."""
    for name in references(recipe.to_dict()):
        for layout in _local(name):
            must_not_be_codes(layout)
    remote = [name for name in references(recipe.to_dict()) if not all(map(is_local, name.split("+")))]
    found = tuple(Source(name, open_layout(name, allow_pickle)) for name in remote)
    for source in found:
        must_not_be_codes(source.layout)
    return Plan(recipe, "mergekit", reason, method, found, 0, None)


class _Made(NamedTuple):
    """What of a plan depends on how the inputs' tensors belong together."""

    sources: tuple[Source, ...]
    tensors: tuple[TensorPlan, ...]
    added: tuple[str, ...]
    notes: list[str]
    config: Mapping[str, Any] | None = None


def _whole(
    recipe: MergeRecipe, method: Method, names: Sequence[str], layouts: Sequence[Layout], base: int, allow_differences: bool,
    called: Called | None = None,
) -> _Made:  # fmt: skip
    """Of models that have the same layers."""
    found = match(layouts, base)
    differences = _used_alike(layouts, base, allow_differences)
    sources = tuple(Source(*one) for one in zip(names, layouts, found.stands_for, strict=True))
    index = {name: i for i, name in enumerate(names)}
    more = {} if called is None else {"called": called}
    tensors = tensor_plans(recipe, method, sources, index, base, found, **more)
    return _Made(sources, tensors, found.added, [*found.notes(layouts[base].name), *differences])


def _of_modules(
    recipe: MergeRecipe, method: Method, names: Sequence[str], layouts: Sequence[Layout], base: int, allow_differences: bool
) -> _Made:
    """Of models whose parts are merged each in its own way: each is planned as if there were no other."""
    found = match(layouts, base)
    differences = _used_alike(layouts, base, allow_differences)
    sources = tuple(Source(*one) for one in zip(names, layouts, found.stands_for, strict=True))
    parts = parts_of(layouts[base], recipe.modules or {})
    of = {name: parts[sources[base].stored_name(name)] for name in found.names}
    index = {name: i for i, name in enumerate(names)}
    tensors: dict[str, TensorPlan] = {}
    for word in recipe.modules or {}:
        own = replace(found, names=tuple(name for name in found.names if of[name] == word))
        plans = tensor_plans(recipe_of(recipe, word, method), method, sources, index, base, own)
        tensors |= {plan.name: with_roles(plan, word) for plan in plans}
    notes = [*found.notes(layouts[base].name), *differences]
    return _Made(sources, tuple(tensors[name] for name in found.names), found.added, notes)


def _stacked(stacking: Stacking, recipe: MergeRecipe, method: Method, base: int, allow_differences: bool) -> _Made:
    """Of slices: each is planned as models that have its layers alone."""
    notes: dict[str, None] = {}
    for number, one in enumerate(stacking.slices):
        views = stacking.views(one)
        names, layouts = list(views), [each.layout for each in views.values()]
        made = _whole(
            one.recipe, method, names, layouts, names.index(one.base), allow_differences, partial(stacking.called, one, views)
        )
        notes |= dict.fromkeys(made.notes)
        stacking.add(number, views, made.sources, made.tensors, made.added)
    layouts = stacking.layouts
    bases = [layouts[base], *(layouts[stacking.names.index(one.base)] for one in stacking.slices)]
    notes |= dict.fromkeys(_used_alike([_of_no_layer(layout) for layout in bases], 0, allow_differences))
    sources = tuple(Source(*one) for one in zip(stacking.names, layouts, stacking.stands_for, strict=True))
    return _Made(sources, stacking.whole(), tuple(stacking.added), list(notes), stacking.config(layouts[base]))


def _of_no_layer(layout: Layout) -> Layout:
    """A model's layout whose configuration says what all of its layers share."""
    shared = {key: value for key, value in layout.config.items() if not isinstance(value, list)}
    return replace(layout, config=shared)


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
    if not recipe.slices or len(recipe.slices) != 1:
        return recipe
    (only,) = recipe.slices
    entries = []
    for source in only.sources:
        depth = depth_of(open_layout(source.model, allow_pickle)).depth
        if [source.layer_range] != [(0, count) for count in depth.values()]:
            return recipe
        kept = {"relative_to": source.relative_to, "parameters": source.parameters, "calibration": source.calibration}
        entries.append(ModelEntry(model=source.model, **kept))
    update = {"models": entries, "parameters": over(only.parameters, recipe.parameters), "slices": None}
    return recipe.model_copy(update={**update, "base_model": only.base_model or recipe.base_model})


def _distinct_names(recipe: MergeRecipe, slices: Sequence[Slice]) -> list[str]:
    names = [recipe.base_model] if recipe.base_model else []
    for one in slices:
        names += one.layers
    for _, entry in [] if slices else recipe.entries():
        names += [entry.model] + ([entry.relative_to] if entry.relative_to else [])
    return list(dict.fromkeys(names))
