"""Layers stacked from slices: which layer of which model stands for which layer of the result.

A slice says the same as a recipe of whole models, but of models that have its layers alone. So each slice is planned as such
a recipe on views of the inputs, and its layers are then counted through. Nothing behind the planner knows of slices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mergetool.architecture.layers import Stacks
from mergetool.architecture.reading import reading_of
from mergetool.architecture.roles import depth_of, roles_of
from mergetool.architecture.stacking import stacked
from mergetool.checkpoint.header import TensorInfo
from mergetool.checkpoint.layout import Layout
from mergetool.errors import CheckpointError, RecipeError
from mergetool.merge.plan import Source, TensorPlan
from mergetool.merge.recipe import MergeRecipe
from mergetool.merge.recipe_entries import Conditional, ModelEntry, Parameters, Setting, SliceEntry
from mergetool.methods import Method


@dataclass(frozen=True)
class Slice:
    """One slice of a recipe.

    Attributes:
        recipe: the same merge in models form, parameters of all levels in one.
        layers: model -> its layers, from the first to the one before the last.
        base: the model that the slice's tensors are like.
    """

    recipe: MergeRecipe
    layers: Mapping[str, tuple[int, int]]
    base: str

    @property
    def depth(self) -> int:
        """Layers."""
        first, last = self.layers[self.base]
        return last - first


@dataclass(frozen=True)
class View:
    """A model that has a slice's layers alone, counted from 0.

    Attributes:
        layout: its tensors under their new names.
        stored: new name -> the name on disk.
        stack: the path of its stack.
    """

    layout: Layout
    stored: Mapping[str, str]
    stack: str


def slices_of(recipe: MergeRecipe, method: Method) -> list[Slice]:
    """The slices of a recipe.

    Raises:
        RecipeError: sources of one slice differ in their number of layers, or it is not known which layers of the base count.
    """
    return [_slice(recipe, method, entry, i) for i, entry in enumerate(recipe.slices or [])]


def _slice(recipe: MergeRecipe, method: Method, entry: SliceEntry, i: int) -> Slice:
    layers: dict[str, tuple[int, int]] = {}
    for k, source in enumerate(entry.sources):
        for name in (source.model, source.relative_to):
            if name is not None and layers.setdefault(name, source.layer_range) != source.layer_range:
                raise RecipeError(
                    f"slices[{i}].sources[{k}]: other layers of {name} are in this slice already", "make it a slice of its own"
                )
    if len({last - first for first, last in layers.values()}) != 1:
        raise RecipeError(f"slices[{i}]: its sources have different numbers of layers", "make their layer_range equally long")
    base = entry.base_model or recipe.base_model
    if base is not None and base not in layers:
        if method.of_models and not method.needs_base:
            base = None  # it takes no part
        elif len(set(layers.values())) == 1:
            layers[base] = next(iter(layers.values()))
        else:
            raise RecipeError(f"slices[{i}]: which layers of {base} count is not said", "add base_model to its sources")
    models = [
        ModelEntry(model=s.model, relative_to=s.relative_to, parameters=s.parameters, calibration=s.calibration)
        for s in entry.sources
    ]
    parameters = over(entry.parameters, recipe.parameters)
    part = recipe.model_copy(update={"slices": None, "models": models, "base_model": base, "parameters": parameters})
    return Slice(part, layers, base or models[0].model)


def over(nearer: Parameters, farther: Parameters) -> Parameters:
    """Parameters of two levels in one: the nearer one's are read first, the other's where those say nothing for a tensor."""
    found: Parameters = {**farther, **nearer}
    for name in nearer.keys() & farther.keys():
        conditions = _conditions(nearer[name])
        if conditions is not None:
            last = farther[name]
            found[name] = [*conditions, *(_conditions(last) or [Conditional(value=last)])]  # pyright: ignore[reportArgumentType]
    return found


def _conditions(setting: Setting) -> list[Conditional] | None:
    """The conditions of a setting; None where it is a value, or a list of values over the depth."""
    if isinstance(setting, Conditional):
        return [setting]
    if isinstance(setting, list) and setting and all(isinstance(one, Conditional) for one in setting):
        return [one for one in setting if isinstance(one, Conditional)]
    return None


def view(layout: Layout, layers: tuple[int, int]) -> View:
    """A model that has some layers of another one alone, and what lies outside of the layers.

    Raises:
        RecipeError: it has not so many layers, or several stacks of them.
    """
    depth = depth_of(layout).depth
    if len(depth) != 1:
        raise RecipeError(
            f"{layout.name} has {len(depth)} stacks of layers ({', '.join(depth) or 'none'}), and slices are of one",
            "merge it in models form",
        )
    ((stack, count),) = depth.items()
    first, last = layers
    if last > count:
        raise RecipeError(
            f"layer_range [{first}, {last}]: {layout.name} has {count} layers", f"write at most [{first}, {count}]"
        )
    stacks, tensors, stored = Stacks(layout.tensors), {}, {}
    for name, info in layout.tensors.items():
        place = stacks.place(name)
        if place is not None:
            if not first <= place.layer < last:
                continue
            here = numbered(name, stack, place.layer - first)
        else:
            here = name
        tensors[here], stored[here] = info, name
    config = stacked(layout.config, [(layout.config, i) for i in range(first, last)])
    return View(replace(layout, tensors=tensors, config=config), stored, stack)


def numbered(name: str, stack: str, layer: int) -> str:
    """A tensor's name with another number of its layer."""
    rest = name.removeprefix(f"{stack}.").partition(".")[2]
    return f"{stack}.{layer}.{rest}"


class Stacking:
    """Puts the plans of slices together.

    Args:
        slices: in the order of the result.
        names: the inputs. layouts: their headers.
    """

    def __init__(self, slices: Sequence[Slice], names: Sequence[str], layouts: Sequence[Layout]) -> None:
        self.slices, self.names, self.layouts = slices, names, layouts
        self.tensors: list[TensorPlan] = []
        self.added: list[str] = []
        self.stands_for: list[dict[str, str]] = [{} for _ in names]
        self._ends: list[list[TensorPlan]] = [[], []]  # what lies before the layers, and behind them
        self._layers = 0

    def views(self, one: Slice) -> dict[str, View]:
        """The models of a slice by name."""
        return {name: view(self.layouts[self.names.index(name)], layers) for name, layers in one.layers.items()}

    def called(self, one: Slice, views: Mapping[str, View], name: str, model: str | None) -> str:
        """What filters are compared with: a tensor's name in the result, or on the disk of one model."""
        if model is not None and model in views:
            return views[model].stored.get(name, name)
        return self._out(views[one.base].stack, name, Stacks(views[one.base].layout.tensors))

    def add(
        self,
        number: int,
        views: Mapping[str, View],
        sources: Sequence[Source],
        plans: Sequence[TensorPlan],
        added: Sequence[str],
    ) -> None:
        """Take a slice's plans.

        Args:
            number: the place of the slice.
            views: its models by name.
            sources: they as sources of its plans.
            plans: of its tensors; what lies outside of the layers is taken from the first and the last slice.
            added: those that its base does not hold under their own name.
        """
        one = self.slices[number]
        places = [self.names.index(source.name) for source in sources]
        stack, stacks = views[one.base].stack, Stacks(views[one.base].layout.tensors)
        before = self._before(one, views)
        for plan in plans:
            outside = stacks.place(plan.name) is None
            first = before is not None and plan.name in before
            if outside and not self._wanted(number, first):
                continue
            name = self._out(stack, plan.name, stacks)
            for source, place in zip(sources, places, strict=True):
                found = views[source.name].stored.get(source.stored_name(plan.name))
                if found is not None:
                    self.stands_for[place][name] = found
            terms = tuple(
                replace(
                    term,
                    source=places[term.source],
                    origin=None if term.origin is None else places[term.origin],
                    role=f"{number}.{term.role}",
                )
                for term in plan.terms
            )
            made = replace(plan, name=name, base=places[plan.base], terms=terms)
            (self._ends[0 if first else 1] if outside else self.tensors).append(made)
            if plan.name in added:
                self.added.append(name)
        self._layers += one.depth

    def _wanted(self, number: int, first: bool) -> bool:
        return number == (0 if first else len(self.slices) - 1)

    def _before(self, one: Slice, views: Mapping[str, View]) -> set[str] | None:
        """The tensors that lie before the layers; not asked for where there is one slice, which has all."""
        if len(self.slices) == 1:
            return set()
        return {name for name, role in roles_of(views[one.base].layout).items() if role == "embeddings"}

    def _out(self, stack: str, name: str, stacks: Stacks) -> str:
        place = stacks.place(name)
        return name if place is None else numbered(name, stack, place.layer + self._layers)

    def whole(self) -> tuple[TensorPlan, ...]:
        """The plans of all tensors."""
        return (*self._ends[0], *self.tensors, *self._ends[1])

    def config(self, base: Layout) -> dict[str, Any]:
        """The result's configuration: the base's, with the layers that were taken.

        Raises:
            CheckpointError: the architecture has these layers in other places only.
        """
        taken = []
        for one in self.slices:
            config = self.layouts[self.names.index(one.base)].config
            taken += [(config, i) for i in range(*one.layers[one.base])]
        config = stacked(base.config, taken)
        self._must_be_read(base, config)
        return config

    def _must_be_read(self, base: Layout, config: dict[str, Any]) -> None:
        if (own := reading_of(base)) is None or own.missing():
            return  # transformers does not know the architecture, or does not read it in this way
        tensors: dict[str, TensorInfo] = {}
        for tensor in self.whole():
            place = self.layouts[tensor.base]
            tensors[tensor.name] = place.tensors[self.stands_for[tensor.base][tensor.name]]
        found = reading_of(replace(base, config=config, tensors=tensors))
        if found is None:
            raise CheckpointError("transformers cannot make a model of these layers", "take other slices")
        missing = found.missing()
        unlike = [w for n, w in found.live.items() if tuple(tensors[n].shape) != tuple(found.skeleton.shapes[w])]
        if missing or unlike:
            lacks = f"'{missing[0]}' is not there" if missing else f"'{unlike[0]}' has another shape"
            raise CheckpointError(
                f"in a model of these layers {lacks}: what a layer of this architecture is made of depends on its place",
                "take slices whose layers keep their places",
            )
