"""A merge written as an adapter: which weights it changes, and how a LoRA holds each of them.

What a merge makes of a base is base + Δ. Where the method is linear and its inputs are LoRA of that base, Δ is Σ c·s·B·A, and
factors one behind the other hold it exactly. Elsewhere Δ is a whole matrix, of which the part of a given rank is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from mergetool.architecture.reading import Reading, live_name, reading_of
from mergetool.architecture.skeleton import Skeleton
from mergetool.checkpoint.adapter import Change, Factors
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.open import open_reader
from mergetool.checkpoint.reader import equal
from mergetool.errors import CheckpointError, RecipeError
from mergetool.hub.model_reference import ModelReference
from mergetool.hub.references import open_layout
from mergetool.merge.plan import Plan, TensorPlan
from mergetool.merge.recipe import MergeRecipe
from mergetool.merge.sparsify import method_of
from mergetool.ops.consensus import consensus
from mergetool.ops.sparsifiers import sparsifier
from mergetool.ops.sparsifiers.none import SPARSIFIER as KEEP_ALL

_FULL = "merge into a full model (output: model)"


class Form(Enum):
    """How an adapter holds a weight."""

    LINEAR = "B·A"
    TRANSPOSED = "(B·A)ᵀ, of a layer that stores (in, out)"
    EMBEDDING = "(B·A)ᵀ, as PEFT names it"
    BIAS = "a bias, saved whole"
    WHOLE = "a module, saved whole"


@dataclass(frozen=True, slots=True)
class Slot:
    """One weight that the adapter changes.

    Attributes:
        tensor: of the plan.
        stored: its tensor in the base.
        weight: its name in memory.
        form: how it is held.
        exact: (source, coefficient) of the factors whose sum it is; empty where it is not such a sum.
        rank: of its factors; 0 for what is saved whole.
        also: other names of the weight in memory, which are tied to it.
    """

    tensor: TensorPlan
    stored: str
    weight: str
    form: Form
    exact: tuple[tuple[int, float], ...] = ()
    rank: int = 0
    also: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """The live module that it belongs to."""
        return self.weight.rpartition(".")[0]


@dataclass(frozen=True)
class AdapterPlan:
    """An adapter that can be written; `base` is what it is for, `name` what the recipe calls that."""

    plan: Plan
    base: Layout
    name: str
    skeleton: Skeleton
    slots: tuple[Slot, ...]

    @property
    def low_rank(self) -> list[Slot]:
        """Those that are held as factors."""
        return [slot for slot in self.slots if slot.rank]


def base_of(recipe: MergeRecipe) -> str:
    """The model that an adapter of this merge is for: `base_model`, or the one that all models are adapters of.

    Raises:
        RecipeError: there are several.
    """
    names = [recipe.base_model] if recipe.base_model else [entry.model for _, entry in recipe.entries()]
    found = list(dict.fromkeys(ModelReference.read(name).model for name in names))
    if len(found) > 1:
        raise RecipeError(
            f"an adapter is for one model, and these are {len(found)} ({', '.join(found[:3])})", "add `base_model:`"
        )
    return found[0]


def must_fit_an_adapter(plan: Plan) -> None:
    """Refuse, from headers alone, a merge that cannot be an adapter.

    Raises:
        RecipeError: mergekit runs it, its vocabulary is another one than the base's, or it needs a `rank`.
        CheckpointError: transformers cannot make a model of the base, or a weight has no place in an adapter.
    """
    if plan.engine != "native":
        raise RecipeError(f"output: adapter needs the native engine ({plan.reason})", _FULL)
    if plan.vocabulary is not None:
        raise RecipeError("an adapter cannot have other words than its base", _FULL)
    for slot in _slots(plan, base_layout(plan), _reading(plan)):
        _must_have_a_rank(plan, slot)


def _must_have_a_rank(plan: Plan, slot: Slot) -> None:
    if slot.form in _FACTORED and not slot.exact and plan.recipe.rank is None:
        raise RecipeError(
            f"'{slot.tensor.name}' does not change by factors alone, so that an adapter holds a part of it",
            "add `rank:` (or --rank)",
        )


_FACTORED = (Form.LINEAR, Form.TRANSPOSED, Form.EMBEDDING)


def base_layout(plan: Plan) -> Layout:
    """The headers of what the adapter is for."""
    name = base_of(plan.recipe)
    return next((source.layout for source in plan.sources if source.name == name), None) or open_layout(name)


def _reading(plan: Plan) -> Reading:
    base = base_layout(plan)
    reading = reading_of(base)
    if reading is None:
        raise CheckpointError(f"{base.name}: transformers cannot make a model of it, so its layers are not known", _FULL)
    return reading


def adapter_plan(plan: Plan) -> AdapterPlan:
    """What the adapter holds; the weights of the inputs are on this disk.

    Args:
        plan: passed `must_fit_an_adapter`.

    Raises:
        RecipeError: the merge is the base, or changes nothing that can be held as factors.
    """
    base, reading = base_layout(plan), _reading(plan)
    changed = [slot for slot in _slots(plan, base, reading) if slot.exact or _differs(plan, base, slot)]
    found = []
    for slot in changed:
        if slot.exact and not _on_the_base_itself(plan, base, slot):
            slot = replace(slot, exact=())
            _must_have_a_rank(plan, slot)
        rank = 0
        if slot.form in _FACTORED:
            rank = min(slot.tensor.shape)
            if slot.exact:
                rank = sum(_factors(plan, slot.tensor, i).rank for i, _ in slot.exact)
            rank = min(rank, plan.recipe.rank or rank)
        found.append(replace(slot, rank=rank))
    modules = {slot.module for slot in found if slot.form is Form.WHOLE}
    held = {slot.weight for slot in found}
    for slot in _slots(plan, base, reading):  # a module is saved with all that it has
        if slot.module in modules and slot.weight not in held:
            found.append(slot)
    if not any(slot.rank for slot in found):
        raise RecipeError("the merge changes no layer that an adapter holds as factors", "look whether its models differ")
    return AdapterPlan(plan, base, base_of(plan.recipe), reading.skeleton, tuple(found))


def _slots(plan: Plan, base: Layout, reading: Reading) -> Iterator[Slot]:
    """Every weight that may differ from the base's, from headers."""
    skeleton = reading.skeleton
    own = {live_name(skeleton, name) for name in plan.added}
    for tensor in plan.tensors:
        if not tensor.floating or not tensor.terms:
            continue
        weight = live_name(skeleton, tensor.name)
        stored = tensor.name if tensor.name in base.tensors else reading.stored(weight)
        coefficients = _coefficients(plan, tensor)
        whole = coefficients is not None and abs(sum(coefficients.values()) - 1.0) > 1e-9
        sources = [i for i in tensor.sources if _may_differ(plan, base, tensor, i, stored)]
        if not sources and not whole:
            if weight in skeleton.shapes and stored is not None and (form := _form(skeleton, weight)) is Form.WHOLE:
                yield Slot(tensor, stored, weight, form)
            continue
        if stored is None or weight not in skeleton.shapes or skeleton.shapes[weight] != tensor.shape:
            raise CheckpointError(f"'{tensor.name}' is a part of '{weight}', which is not written as an adapter", _FULL)
        form = _form(skeleton, weight)
        if form is None:
            raise CheckpointError(f"'{weight}' changes, and an adapter has no place for it", _FULL)
        also = tuple(n for n in skeleton.group(weight) if n != weight and n not in own)
        exact = () if whole or form not in _FACTORED else _exact(plan, base, tensor, coefficients, sources)
        yield Slot(tensor, stored, weight, form, exact, also=also)


def _form(skeleton: Skeleton, weight: str) -> Form | None:
    """How an adapter holds a weight. What is tied is saved whole: PEFT adds factors to it twice when it merges them."""
    from torch.nn import Embedding, Linear
    from transformers.pytorch_utils import Conv1D

    module, _, leaf = weight.rpartition(".")
    live: Any = skeleton.model.get_submodule(module)
    tied = any(name.rpartition(".")[0] == module and len(skeleton.group(name)) > 1 for name in skeleton.shapes)
    if isinstance(live, (Linear, Conv1D)) and not tied:
        return Form.BIAS if leaf == "bias" else Form.LINEAR if isinstance(live, Linear) else Form.TRANSPOSED
    if type(live) is Embedding and not tied:
        return Form.EMBEDDING
    return Form.WHOLE if not list(live.children()) and len(skeleton.shapes[weight]) != 3 else None


def _same_model(one: Layout, other: Layout) -> bool:
    return one.headers == other.headers and one.directory.resolve() == other.directory.resolve()


def _change(plan: Plan, tensor: TensorPlan, source: int) -> Change | None:
    """What a source's adapter does to a tensor."""
    found = plan.sources[source]
    return None if found.layout.adapter is None else found.layout.adapter.changes.get(found.stored_name(tensor.name))


def _factors(plan: Plan, tensor: TensorPlan, source: int) -> Factors:
    change = _change(plan, tensor, source)
    assert change is not None
    assert change.factors is not None
    return change.factors


def _may_differ(plan: Plan, base: Layout, tensor: TensorPlan, source: int, stored: str | None) -> bool:
    found = plan.sources[source]
    layout, name = found.layout, found.stored_name(tensor.name)
    if not _same_model(layout, base):
        return True
    if layout.adapter is not None and (name in layout.adapter.changes or name in layout.adapter.parts):
        return True
    return stored is None or layout.tensors[name] != base.tensors[stored]


def _coefficients(plan: Plan, tensor: TensorPlan) -> dict[int, float] | None:
    """Source -> its factor, where the result is the sum of the sources with these factors; None where it is none."""
    method = method_of(plan)
    weights = [term.weight for term in tensor.terms]
    found = consensus(method.consensus.name).fixed_factors(weights, tensor.options)
    if found is None or method.projects or (not method.of_models and sparsifier(method.sparsifier.name) is not KEEP_ALL):
        return None
    sums: dict[int, float] = {}
    if not method.of_models:
        sums[tensor.base] = 1.0
        found = [weight * tensor.options["lambda"] for weight in found]
    for term, weight in zip(tensor.terms, found, strict=True):
        sums[term.source] = sums.get(term.source, 0.0) + weight
        if term.origin is not None:
            sums[term.origin] = sums.get(term.origin, 0.0) - weight
    return sums


def _exact(
    plan: Plan, base: Layout, tensor: TensorPlan, coefficients: Mapping[int, float] | None, sources: list[int]
) -> tuple[tuple[int, float], ...]:
    """The factors whose sum a change is; empty where something else takes part."""
    if coefficients is None:
        return ()
    for i in sources:
        change = _change(plan, tensor, i)
        if (
            not _same_model(plan.sources[i].layout, base)
            or change is None
            or change != Change(change.shape, change.replaced, factors=change.factors)
        ):
            return ()
        if change.factors is None or change.factors.experts > 1 or len(tensor.shape) != 2:
            return ()
    return tuple((i, coefficients[i]) for i in sources if coefficients[i] != 0.0)


def _on_the_base_itself(plan: Plan, base: Layout, slot: Slot) -> bool:
    """Whether what an adapter saved of its base, as PEFT does beside factors of an embedding, is the base's own."""
    for i, _ in slot.exact:
        change, source = _change(plan, slot.tensor, i), plan.sources[i]
        if change is not None and change.replaced is not None and source.layout.adapter is not None:
            name = source.stored_name(slot.tensor.name)
            alone = replace(source.layout.adapter, changes={name: replace(change, factors=None)})
            with open_reader(replace(source.layout, adapter=alone)) as theirs, open_reader(base) as ours:
                if not equal(theirs, name, ours, slot.stored):
                    return False
    return True


def _differs(plan: Plan, base: Layout, slot: Slot) -> bool:
    """Whether a weight that may differ from the base's does; its sources are read up to the first difference."""
    for i in slot.tensor.sources:
        source = plan.sources[i]
        if not _may_differ(plan, base, slot.tensor, i, slot.stored):
            continue
        if _same_model(source.layout, base):  # an adapter's change
            return True
        name = source.stored_name(slot.tensor.name)
        with open_reader(source.layout) as theirs, open_reader(base) as ours:
            if not equal(theirs, name, ours, slot.stored):
                return True
    coefficients = _coefficients(plan, slot.tensor)
    return coefficients is not None and abs(sum(coefficients.values()) - 1.0) > 1e-9
