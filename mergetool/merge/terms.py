"""What each tensor of a merge is made of: its terms, with the recipe's parameters evaluated for it."""

from __future__ import annotations

from typing import Any

from mergetool.architecture.match import Match
from mergetool.architecture.roles import depth_of
from mergetool.checkpoint.header import BY_TORCH_NAME
from mergetool.errors import RecipeError
from mergetool.merge.plan import Source, TensorPlan, Term
from mergetool.merge.recipe import MergeRecipe, ModelEntry, evaluate, has_gradients, number
from mergetool.methods import Method

RESCALES = ("unbiased", "l1", "none")


def tensor_plans(
    recipe: MergeRecipe, method: Method, sources: tuple[Source, ...], index: dict[str, int], base: int, found: Match
) -> tuple[TensorPlan, ...]:
    """How each tensor of the result is made.

    Args:
        recipe, method: what is asked for.
        sources: the inputs. index: name in the recipe -> its place among them. base: the place of the base.
        found: how the inputs' tensors belong together.
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
        t = number(required("t", None, "the recipe"), "t", plan.name)
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
