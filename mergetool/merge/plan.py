"""From a recipe to a plan: what will be read, computed and written, for every tensor.

Everything that can be known without weights is decided here, and every error that headers can show is raised here;
the engine only carries it out.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from mergetool.checkpoint.header import BY_TORCH_NAME, DTYPES
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.model_files import same_vocabulary
from mergetool.config.strict_yaml import validate
from mergetool.errors import CheckpointError, RecipeError, nearest
from mergetool.hub.fetch import missing_weights
from mergetool.hub.references import is_local, open_layout
from mergetool.merge.mergekit import MERGEKIT_METHODS
from mergetool.merge.recipe import MergeRecipe, ModelEntry, evaluate, layer_of, number
from mergetool.methods import METHODS, Method
from mergetool.ops.blocks import BLOCK
from mergetool.version import __version__

RESCALES = ("unbiased", "l1", "none")
EMBEDDING, HEAD = "embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Source:
    """One distinct input model: its name in the recipe and its headers."""

    name: str
    layout: Layout

    def stored_name(self, name: str) -> str:
        """The tensor that holds `name`: itself, or the input embedding where a tied head has no tensor of its own."""
        if name in self.layout.tensors or not name.endswith(HEAD) or not self.layout.tied:
            return name
        return next((n for n in self.layout.tensors if n.endswith(EMBEDDING)), name)


@dataclass(frozen=True, slots=True)
class Term:
    """One model's part in one tensor. `source` and `origin` index the plan's sources; `role` keys its randomness."""

    source: int
    origin: int | None
    weight: float
    density: float
    role: str
    gamma: float = 0.0
    epsilon: float = 0.0


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """How one output tensor is made."""

    name: str
    shape: tuple[int, ...]
    numel: int
    dtype_name: str
    floating: bool
    base: int
    terms: tuple[Term, ...]
    normalize: bool = False
    lam: float = 1.0
    rescale: str = "none"
    t: float = 0.0
    scope: str = "tensor"

    @property
    def sources(self) -> list[int]:
        """The sources that are read, each once."""
        used = [self.base] if not self.terms or any(t.origin is not None for t in self.terms) else []
        for term in self.terms:
            used += [term.source] if term.origin is None else [term.source, term.origin]
        return list(dict.fromkeys(used))


@dataclass(frozen=True)
class Plan:
    """A merge ready to be carried out.

    `engine` is "native" or "mergekit"; `reason` says why it is not ours. `tensors` are in output order.
    """

    recipe: MergeRecipe
    engine: str
    reason: str
    method: Method | None
    sources: tuple[Source, ...]
    sidecar: int
    tokenizer: int
    tensors: tuple[TensorPlan, ...] = field(default=(), repr=False)

    @property
    def bytes_read(self) -> int:
        """Bytes of weights that the merge reads (once; sparsifiers that need a statistic read them again)."""
        layouts = [s.layout for s in self.sources]
        return sum(layouts[s].tensors[self.sources[s].stored_name(t.name)].nbytes for t in self.tensors for s in t.sources)

    @property
    def bytes_written(self) -> int:
        """Bytes of weights in the output."""
        return sum(t.numel * DTYPES[t.dtype_name][1] for t in self.tensors)

    @property
    def fingerprint(self) -> str:
        """Identifies recipe, inputs (headers, sizes, commits or times of change) and program; equal ones, equal bytes."""
        inputs = [part for s in self.sources for part in s.layout.identity]
        text = json.dumps([__version__, self.recipe.to_dict(), inputs], sort_keys=True)
        return sha256(text.encode()).hexdigest()


def plan_merge(recipe: MergeRecipe, engine: str = "auto", allow_pickle: bool = False) -> Plan:
    """Work out what a recipe means, from headers alone: of a Hub repository no weights are fetched.

    Args:
        recipe: validated; its paths resolved.
        engine: ``auto`` (ours where every feature is ours), ``native``, or ``mergekit``.
        allow_pickle: let a Hub repository that has no safetensors pass; see `open_layout`.

    Raises:
        RecipeError: unknown method or parameter, a value out of range, a feature that the engine asked for lacks.
        CheckpointError: an input is missing, damaged, or does not fit the others.
    """
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
        # mergekit reads headers when it runs; what it is to be given from the Hub is looked at now
        remote = [name for name in references(recipe.to_dict()) if not all(map(is_local, name.split("+")))]
        found = tuple(Source(name, open_layout(name, allow_pickle)) for name in remote)
        return Plan(recipe, "mergekit", reason, method, found, 0, 0)
    assert method is not None  # _not_native answered for a method that is not in the table
    _check_shape_of_recipe(recipe, method)
    names = _distinct_names(recipe)
    sources = tuple(Source(name, open_layout(name, allow_pickle)) for name in names)
    index = {name: i for i, name in enumerate(names)}
    base = index[recipe.base_model] if recipe.base_model else index[recipe.models[0].model]
    _check_alike(sources, base)
    tensors = _tensor_plans(recipe, method, sources, index, base)
    return Plan(recipe, "native", "", method, sources, base, _tokenizer(recipe, sources, index, base), tensors)


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
    for key in ("slices", "modules", "tokenizer"):
        if getattr(recipe, key):
            return key
    if recipe.tokenizer_source == "union" or isinstance(recipe.tokenizer_source, dict):
        return "tokenizer_source"
    if recipe.chat_template and "{" not in recipe.chat_template:
        return f"chat_template {recipe.chat_template}"
    return ""


def _check_shape_of_recipe(recipe: MergeRecipe, method: Method) -> None:
    if method.needs_base and not recipe.base_model:
        raise RecipeError(f"merge_method {method.name} needs base_model", "add `base_model:` to the recipe")
    if method.consensus in ("linear", "slerp"):
        relative = next((i for i, m in enumerate(recipe.models) if m.relative_to), None)
        if relative is not None:
            raise RecipeError(
                f"models[{relative}].relative_to has no meaning for {method.name}, which merges models, not deltas",
                "remove it, or use task_arithmetic, ties or a dare method",
            )
    if method.consensus == "slerp":
        others = {m.model for m in recipe.models} - {recipe.base_model}
        if len(others) != 1:
            raise RecipeError(f"slerp takes base_model and one other model, found {len(others)} others", "list exactly two")
    places = [("parameters", recipe.parameters)]
    places += [(f"models[{i}].parameters", m.parameters) for i, m in enumerate(recipe.models)]
    for place, parameters in places:
        for name in parameters:
            if name not in method.parameters:
                raise RecipeError(f"{place}.{name}: {method.name} has no parameter '{name}'", nearest(name, method.parameters))


def _distinct_names(recipe: MergeRecipe) -> list[str]:
    names = [recipe.base_model] if recipe.base_model else []
    for entry in recipe.models:
        names += [entry.model] + ([entry.relative_to] if entry.relative_to else [])
    if isinstance(recipe.tokenizer_source, str) and recipe.tokenizer_source != "base":
        names.append(recipe.tokenizer_source)
    return list(dict.fromkeys(names))


def _check_alike(sources: tuple[Source, ...], base: int) -> None:
    """Every model has the same tensors in the same shapes, one architecture, and one vocabulary."""
    reference = sources[base].layout
    for source in sources:
        layout = source.layout
        if layout is reference:
            continue
        for key in ("model_type",):
            ours, theirs = reference.config.get(key), layout.config.get(key)
            if ours != theirs:
                raise CheckpointError(
                    f"{layout.name}: {key} is {theirs!r}, but {ours!r} in {reference.name}",
                    "merge models of one architecture",
                )
        for name in dict.fromkeys([*reference.tensors, *layout.tensors]):
            ours = reference.tensors.get(sources[base].stored_name(name))
            theirs = layout.tensors.get(source.stored_name(name))
            if ours is None or theirs is None:
                lacking, having = (layout, reference) if theirs is None else (reference, layout)
                count = len(set(having.tensors) - set(lacking.tensors))
                raise CheckpointError(
                    f"{lacking.name}: lacks tensor '{name}' ({count} in all) that {having.name} has",
                    "merge checkpoints of one architecture",
                )
            if ours.shape != theirs.shape:
                raise CheckpointError(
                    f"{layout.name}: tensor '{name}' has shape {list(theirs.shape)}, "
                    f"but {list(ours.shape)} in {reference.name}",
                    "merge models of one size and vocabulary",
                )


def _tokenizer(recipe: MergeRecipe, sources: tuple[Source, ...], index: dict[str, int], base: int) -> int:
    """The source whose tokenizer the output gets."""
    if recipe.tokenizer_source is not None:
        return base if recipe.tokenizer_source == "base" else index[str(recipe.tokenizer_source)]
    for source in sources:
        if not same_vocabulary(sources[base].layout.place, source.layout.place):
            raise CheckpointError(
                f"{source.layout.name}: its tokenizer's vocabulary differs from that of {sources[base].layout.name}",
                "say which one the result gets: `tokenizer_source: base` or a model's path",
            )
    return base


def _tensor_plans(
    recipe: MergeRecipe, method: Method, sources: tuple[Source, ...], index: dict[str, int], base: int
) -> tuple[TensorPlan, ...]:
    depth: dict[str, int] = {}
    names = list(dict.fromkeys(n for s in (sources[base], *sources) for n in s.layout.tensors))
    for name in names:
        if (place := layer_of(name)) is not None:
            depth[place[0]] = max(depth.get(place[0], 0), place[1] + 1)
    asked = recipe.out_dtype or recipe.dtype
    plans = []
    for name in names:
        info = sources[base].layout.tensors[sources[base].stored_name(name)]
        place = layer_of(name)
        t = place[1] / (depth[place[0]] - 1) if place and depth[place[0]] > 1 else 1.0 if place else 0.0
        dtype_name = BY_TORCH_NAME[asked] if asked and info.floating else info.dtype_name
        plan = TensorPlan(name, info.shape, info.numel, dtype_name, info.floating, base, ())
        plans.append(_with_terms(plan, recipe, method, index, t) if info.floating else _carried(plan, sources))
    return tuple(plans)


def _carried(plan: TensorPlan, sources: tuple[Source, ...]) -> TensorPlan:
    """A tensor of integers is carried over from the base; the engine checks that the models agree on it."""
    others = tuple(Term(i, None, 0.0, 1.0, "") for i, s in enumerate(sources) if plan.name in s.layout.tensors)
    return TensorPlan(plan.name, plan.shape, plan.numel, plan.dtype_name, False, plan.base, others)


def _with_terms(plan: TensorPlan, recipe: MergeRecipe, method: Method, index: dict[str, int], depth: float) -> TensorPlan:
    def value(name: str, entry: ModelEntry | None = None, default: Any = None) -> Any:
        for parameters in (entry.parameters if entry else {}, recipe.parameters):
            if name in parameters:
                found = evaluate(parameters[name], plan.name, depth)
                if found is not None:
                    return found
        return default

    def required(name: str, entry: ModelEntry | None, place: str) -> Any:
        found = value(name, entry)
        if found is None:
            raise RecipeError(f"{place} has no {name} for tensor '{plan.name}'", f"give `{name}:` under its parameters")
        return found

    if method.consensus == "slerp":
        t = number(required("t", None, "the recipe"), "t", plan.name, 0.0, 1.0)
        other = next(m.model for m in recipe.models if m.model != recipe.base_model)
        terms = (Term(plan.base, None, 1.0 - t, 1.0, "0"), Term(index[other], None, t, 1.0, "1"))
        return _filled(plan, terms, t=t)
    terms = []
    for i, entry in enumerate(recipe.models):
        origin = entry.relative_to or recipe.base_model
        if method.consensus != "linear" and entry.model == origin:
            continue  # the base among the models is a delta of zero, as in mergekit
        weight = number(required("weight", entry, f"models[{i}]"), "weight", plan.name)
        density = number(value("density", entry, 1.0), "density", plan.name, 0.0, 1.0)
        from_ = None if method.consensus == "linear" else index[str(origin)]
        gamma = number(value("gamma", entry, 0.01), "gamma", plan.name, 0.0, 1.0)
        epsilon = number(value("epsilon", entry, 0.15), "epsilon", plan.name, 0.0, 0.5)
        if method.sparsifier == "della" and density < 1.0 and not (density - epsilon > 0.0 and density + epsilon < 1.0):
            raise RecipeError(
                f"models[{i}]: density {density:g} ± epsilon {epsilon:g} leaves (0, 1) for tensor '{plan.name}'",
                "choose a smaller epsilon",
            )
        terms.append(Term(index[entry.model], from_, weight, density, str(i), gamma, epsilon))
    if not terms:
        raise RecipeError("models holds nothing but base_model", "list at least one other model")
    normalize = value("normalize", default=method.normalize)
    if not isinstance(normalize, bool):
        raise RecipeError(f"parameters.normalize is {normalize!r}", "it must be true or false")
    return _filled(
        plan, tuple(terms), normalize=normalize, lam=number(value("lambda", default=1.0), "lambda", plan.name),
        rescale=_rescale(value("rescale", default=method.rescale)), scope=_scope(value("scope", default="tensor")),
    )  # fmt: skip


def _rescale(value: Any) -> str:
    """mergekit's truth value means its own rule, the L1 norm."""
    if isinstance(value, bool):
        return "l1" if value else "none"
    if value not in RESCALES:
        raise RecipeError(f"parameters.rescale is {value!r}", f"it must be one of {', '.join(RESCALES)}, true (l1) or false")
    return value


def _scope(value: Any) -> str:
    if value not in ("tensor", "model"):
        raise RecipeError(f"parameters.scope is {value!r}", "it must be tensor or model")
    return value


def _filled(plan: TensorPlan, terms: tuple[Term, ...], **values: Any) -> TensorPlan:
    return TensorPlan(plan.name, plan.shape, plan.numel, plan.dtype_name, plan.floating, plan.base, terms, **values)


def describe(plan: Plan, threads: int | None = None) -> dict[str, Any]:
    """What `check` and `--dry-run` report: bytes to read and write, memory, disk.

    ``bytes_of_peak_memory`` is an estimate of anonymous memory: the interpreter with torch, and each thread's buffers.
    """
    if plan.engine == "mergekit":
        return {"engine": "mergekit", "reason": plan.reason, **_fetched(plan)}
    threads = threads or len(os.sched_getaffinity(0))
    terms = max((len(t.terms) for t in plan.tensors), default=0)
    largest = max((t.numel for t in plan.tensors), default=0)
    selecting = plan.method is not None and plan.method.sparsifier in ("magnitude", "outliers")
    buffers = (len(plan.sources) + 2 * terms + 6) * BLOCK * 4 + (largest // 4 if selecting else 0)
    return {
        "engine": plan.engine,
        "method": plan.recipe.merge_method,
        "models": [s.name for s in plan.sources],
        "tensors": len(plan.tensors),
        "parameters": sum(t.numel for t in plan.tensors),
        "dtype": sorted({t.dtype_name for t in plan.tensors}),
        **_fetched(plan),
        "bytes_read": plan.bytes_read,
        "bytes_written": plan.bytes_written,
        "bytes_of_disk": plan.bytes_written,
        "bytes_of_peak_memory": 250_000_000 + threads * buffers,
    }


def _fetched(plan: Plan) -> dict[str, Any]:
    """What lies on the Hub: at which commit, and how much of it is not in the cache yet."""
    pinned = {s.layout.pinned.name: s.layout.pinned.commit for s in plan.sources if s.layout.pinned}
    if not pinned:
        return {}
    missing = missing_weights([s.layout for s in plan.sources])
    return {"commits": pinned, "bytes_to_fetch": sum(size for _, _, size in missing)}
