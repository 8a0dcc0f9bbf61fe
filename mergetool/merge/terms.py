"""What each tensor of a merge is made of: its terms, with the recipe's parameters evaluated for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from mergetool.architecture.match import Match
from mergetool.architecture.roles import depth_of
from mergetool.checkpoint.header import BY_TORCH_NAME, TensorInfo
from mergetool.errors import CheckpointError, RecipeError
from mergetool.merge.plan import Source, TensorPlan, Term
from mergetool.merge.recipe import MergeRecipe, ModelEntry, evaluate, has_gradients
from mergetool.methods import Method

_NO_SUM = 1e-9  # weights that differ from it are meant

Called = Callable[[str, str | None], str]
"""``called(tensor, model)``: the name that filters of that model's parameters are compared with; of the result's for None."""


def _by_its_name(tensor: str, model: str | None) -> str:
    return tensor


def tensor_plans(
    recipe: MergeRecipe, method: Method, sources: tuple[Source, ...], index: dict[str, int], base: int, found: Match,
    called: Called = _by_its_name,
) -> tuple[TensorPlan, ...]:  # fmt: skip
    """How each tensor of the result is made.

    Args:
        recipe, method: what is asked for.
        sources: the inputs. index: name in the recipe -> its place among them. base: the place of the base.
        found: how the inputs' tensors belong together.
        called: what a filter takes a tensor's name for.
    """
    stacks = depth_of(sources[base].layout) if has_gradients(recipe) else None
    asked = recipe.out_dtype or recipe.dtype
    plans = []
    for name in found.names:
        info = sources[base].layout.tensors[sources[base].stored_name(name)]
        if name in found.carried:  # as it is, in its own dtype
            plans.append(TensorPlan(name, info.shape, info.numel, info.dtype_name, False, base, ()))
            continue
        t = stacks.height(name) if stacks is not None else 0.0
        dtype_name = BY_TORCH_NAME[asked] if asked and info.floating else info.dtype_name
        plan = TensorPlan(name, info.shape, info.numel, dtype_name, info.floating, base, ())
        _must_be_of_one_kind(name, info, sources, base)
        plans.append(_with_terms(plan, recipe, method, index, t, called) if info.floating else _carried(plan, sources))
    return tuple(plans)


def _must_be_of_one_kind(name: str, info: TensorInfo, sources: tuple[Source, ...], base: int) -> None:
    """Integers under the name of a weight are codes of a quantisation that nothing else tells of."""
    for source in sources:
        other = source.layout.tensors.get(source.stored_name(name))
        if other is not None and other.floating != info.floating:
            ours = f"{info.dtype_name} in {sources[base].layout.name}"
            raise CheckpointError(
                f"{source.layout.name}: tensor '{name}' is {other.dtype_name}, but {ours}",
                "take checkpoints whose weights are numbers: these are codes of a quantised one",
            )


def _carried(plan: TensorPlan, sources: tuple[Source, ...]) -> TensorPlan:
    """A tensor of integers is carried over from the base; the engine checks that the models agree on it."""
    others = tuple(Term(i, None, 0.0, "") for i, s in enumerate(sources) if plan.name in s.layout.tensors)
    return TensorPlan(plan.name, plan.shape, plan.numel, plan.dtype_name, False, plan.base, others)


def _with_terms(
    plan: TensorPlan, recipe: MergeRecipe, method: Method, index: dict[str, int], depth: float, called: Called
) -> TensorPlan:
    if not recipe.models:  # a part of a model that stays the base's
        return plan
    shared = _options(method, recipe, called(plan.name, None), depth)
    if method.consensus.pair:
        other = next(m.model for m in recipe.models if m.model != recipe.base_model)
        terms = [Term(plan.base, None, 1.0, "0"), Term(index[other], None, 1.0, "1")]
        return replace(plan, terms=tuple(terms), options=shared)
    terms, of_models = [], method.merges_models(recipe.base_model)
    if of_models and shared.get("scaling", 1.0) != 1.0:
        raise RecipeError("scaling: of models nothing is scaled, of task vectors what is added", "add `base_model:`")
    for i, entry in enumerate(recipe.models):
        origin = entry.relative_to or recipe.base_model
        if not of_models and entry.model == origin:
            continue  # the base among the models is a delta of zero, as in mergekit
        own = _options(method, recipe, called(plan.name, entry.model), depth, i)
        if problem := method.fits(shared | own):
            raise RecipeError(f"models[{i}]: {problem[0]} for tensor '{plan.name}'", problem[1])
        from_ = None if of_models else index[str(origin)]
        terms.append(Term(index[entry.model], from_, own.pop("weight", 1.0), str(i), own))
    if method.consensus.base_too and recipe.base_model and all(term.source != plan.base for term in terms):
        terms.append(Term(plan.base, None, 1.0, str(len(recipe.models))))
    if (divides := method.consensus.divides) is not None and shared[divides]:
        _must_have_a_sum(plan.name, [term.weight for term in terms], divides)
    if not terms:
        raise RecipeError("models holds nothing but base_model", "list at least one other model")
    return replace(plan, terms=tuple(terms), options=shared)


def _must_have_a_sum(tensor: str, weights: Sequence[float], divides: str) -> None:
    if weights and abs(math.fsum(weights)) < _NO_SUM:
        what = "are all 0" if not any(weights) else "add up to 0"
        raise RecipeError(
            f"the weights of tensor '{tensor}' {what}, and {divides} divides by their sum",
            f"give weights with a sum, or `{divides}: false` where parts of models are to be added up",
        )


def must_weigh(plans: Iterable[TensorPlan]) -> None:
    """Refuse a merge in which no model has a weight.

    Raises:
        RecipeError: all weights of all tensors are 0.
    """
    weights = {term.weight for plan in plans for term in plan.terms if plan.floating}
    if weights == {0.0}:
        raise RecipeError("all weights are 0: no model takes part in the result", "give a model a weight")


def _options(method: Method, recipe: MergeRecipe, tensor: str, depth: float, model: int | None = None) -> dict[str, Any]:
    """The method's options for one tensor: those that all models share, or those that `model` has for itself."""
    entry = None if model is None else recipe.models[model]
    found = {}
    for option in method.options:
        if option.per_model == (entry is not None):
            value = _setting(option.name, entry, recipe, tensor, depth)
            if value is None and option.required:
                place = "the recipe" if model is None else f"models[{model}]"
                raise RecipeError(
                    f"{place} has no {option.name} for tensor '{tensor}'", f"give `{option.name}:` under its parameters"
                )
            try:
                found[option.name] = option.default if value is None else option.read(value)
            except ValueError:
                raise RecipeError(
                    f"parameter '{option.name}' is {value!r} for tensor '{tensor}'", f"it must be {option.must}"
                ) from None
    return found


def _setting(name: str, entry: ModelEntry | None, recipe: MergeRecipe, tensor: str, depth: float) -> Any:
    """What the recipe sets an option to, the model's own parameters first; None where it sets nothing."""
    for parameters in (entry.parameters if entry else {}, recipe.parameters):
        if name in parameters:
            found = evaluate(parameters[name], tensor, depth)
            if found is not None:
                return found
    return None
