"""The merge recipe: mergekit's own dialect, read strictly, with `relative_to`, `rescale`, `scope`, `calibration` and `seed`
added.

A recipe holds what the user wrote and nothing else; what it means for each tensor is worked out by `plan`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from mergetool.activations.recipe import CalibrationEntry
from mergetool.config.settings import with_settings
from mergetool.config.sources import resolve_source
from mergetool.config.strict_yaml import validate
from mergetool.merge.dialect import dtype_name, understood, with_values
from mergetool.merge.recipe_entries import (
    Conditional,
    ModelEntry,
    ModelName,
    ModuleEntry,
    Parameters,
    Scalar,
    Setting,
    SliceEntry,
    reference_of,
)  # fmt: skip
from mergetool.merge.recipe_source import recipe_source
from mergetool.merge.soup import with_soups
from mergetool.methods import METHODS

ADAPTER_OUTPUT = "adapter"
"""`output:` of a recipe whose result is an adapter."""
DTypeName = Annotated[Literal["float32", "float16", "bfloat16", "float64"], BeforeValidator(dtype_name)]
Entry = TypeVar("Entry", bound=ModelEntry)


# what an editor offers; a later mergekit has other names
_KNOWN_METHODS: dict[str, Any] = {"anyOf": [{"enum": sorted(METHODS)}, {"type": "string"}]}


class MergeRecipe(BaseModel):
    """A merge as the user wrote it.

    Attributes:
        merge_method: a row of `mergetool methods`, or with `--engine mergekit` what a later mergekit adds.
        models: what is merged: directories, `lab:NAME`, Hub ids `org/name[@revision]`, or MODEL+ADAPTER.
        slices: layers that are stacked, in place of `models`.
        modules: parts of a model, each merged by itself, in place of `models`.
        base_model: the checkpoint that task vectors are differences from; it gives the result its tensors and config.
        parameters: of the method, for all models: a number, a list over the layers, or values by `filter`.
        dtype: of the arithmetic's result, and of the written weights unless `out_dtype` names another type.
        out_dtype: of the written weights.
        tokenizer_source: whose tokenizer the result has: `base`, `union`, or a model.
        tokenizer: the same with a source for single tokens, as in mergekit.
        chat_template: a name of mergekit's, `auto`, or the template itself.
        calibration: rows whose outputs should stay, or the file that `mergetool calibrate` made of them.
        seed: of the random masks.
        name: of a recipe that others in the same file merge on.
        output: `adapter` writes a LoRA adapter of the base in place of a model.
        rank: of the adapter, at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    merge_method: str = Field(json_schema_extra=_KNOWN_METHODS)
    models: list[ModelEntry] = Field(default_factory=list)
    base_model: ModelName | None = None
    parameters: Parameters = Field(default_factory=dict)
    dtype: DTypeName | None = None
    out_dtype: DTypeName | None = None
    tokenizer_source: ModelName | None = None
    chat_template: str | None = None
    slices: list[SliceEntry] | None = None
    modules: dict[str, ModuleEntry] | None = None
    tokenizer: dict[str, Any] | None = None
    calibration: CalibrationEntry | None = None
    seed: int = 0
    name: str | None = None
    output: Literal["model", "adapter"] = "model"
    rank: Annotated[int, Field(ge=1)] | None = None
    _notes: tuple[str, ...] = PrivateAttr(())

    @field_validator("parameters", mode="before")
    @classmethod
    def _no_parameters(cls, value: Any) -> Any:
        return {} if value is None else with_values(value)

    @model_validator(mode="after")
    def _one_list_of_inputs(self) -> MergeRecipe:
        given = [key for key in ("models", "slices", "modules") if getattr(self, key)]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"a recipe needs exactly one of models, slices and modules, found {found}; give `models:`")
        return self

    @property
    def calibrated(self) -> bool:
        """True where calibrations are read: the base's, or the models' own."""
        return self.calibration is not None or any(entry.calibration is not None for _, entry in self.entries())

    def calibrations(self) -> list[tuple[str, CalibrationEntry]]:
        """(model, its calibration) of each of `models` where the method reads one of each: its own, else the recipe's."""
        found = [(entry.model, entry.calibration or self.calibration) for entry in self.models]
        return [(model, entry) for model, entry in found if entry is not None]

    @property
    def notes(self) -> tuple[str, ...]:
        """Words of the recipe that were ignored, a line each."""
        return self._notes

    def resolved(self, directory: str | Path) -> MergeRecipe:
        """The same recipe with every path that exists beside it made absolute; Hub ids stay as they are."""

        def place(text: str | None) -> str | None:
            return None if text is None else "+".join(str(resolve_source(part, directory)) for part in text.split("+"))

        def placed(entry: Entry) -> Entry:
            own = entry.calibration and entry.calibration.resolved(directory)
            update = {"model": place(entry.model), "relative_to": place(entry.relative_to), "calibration": own}
            return entry.model_copy(update=update)

        def sliced(slices: list[SliceEntry] | None) -> list[SliceEntry] | None:
            return slices and [
                one.model_copy(update={"sources": [*map(placed, one.sources)], "base_model": place(one.base_model)})
                for one in slices
            ]

        modules = self.modules and {
            name: module.model_copy(update={"models": [*map(placed, module.models)], "slices": sliced(module.slices)})
            for name, module in self.modules.items()
        }

        def named(value: Any) -> Any:  # a model, or one of mergekit's two words for several
            return value if value in ("base", "union") else place(reference_of(value))

        def row(setting: Any) -> Any:
            source = setting.get("source") if isinstance(setting, dict) else None
            if isinstance(source, dict) and source.get("kind"):
                return {**setting, "source": {**source, "model": named(source["model"])}} if "model" in source else setting
            return setting if source is None else {**setting, "source": named(source)}

        tokenizer = self.tokenizer
        if tokenizer:
            tokens = tokenizer.get("tokens")
            tokens = {word: row(setting) for word, setting in tokens.items()} if isinstance(tokens, dict) else tokens
            tokenizer = {**tokenizer, "source": named(tokenizer.get("source", "union")), "tokens": tokens}
        source = None if self.tokenizer_source is None else named(self.tokenizer_source)
        calibration = None if self.calibration is None else self.calibration.resolved(directory)
        update = {"calibration": calibration, "models": [*map(placed, self.models)], "base_model": place(self.base_model)}
        update |= {"slices": sliced(self.slices), "modules": modules, "tokenizer": tokenizer, "tokenizer_source": source}
        return self.model_copy(update=update)

    def entries(self) -> Iterator[tuple[str, ModelEntry]]:
        """Every model that is merged, whatever the form, with its place: ``slices[0].sources[1]``."""
        for at, held in (("", self), *((f"modules.{name}.", module) for name, module in (self.modules or {}).items())):
            yield from ((f"{at}models[{i}]", entry) for i, entry in enumerate(held.models))
            for k, one in enumerate(held.slices or []):
                yield from ((f"{at}slices[{k}].sources[{i}]", entry) for i, entry in enumerate(one.sources))

    def to_dict(self) -> dict[str, Any]:
        """What the user wrote, without defaults: for YAML and JSON."""
        written = self.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        return written if self.calibration is None else written | {"calibration": self.calibration.written()}


def load_merge_recipe(path: str | Path, settings: Sequence[str] = ()) -> MergeRecipe:
    """Read and validate a recipe; relative model paths start from the recipe's directory, then from where you are.

    Args:
        path: a file, or what else `recipe_source` takes: ``-``, a recipe of the package, a merged model.
        settings: values set anew, see `config.settings`.

    Raises:
        RecipeError: the file or a key in it is wrong; one line.
    """
    source = recipe_source(str(path))
    content, notes = understood(with_settings(source.content, settings), source.anchored - MergeRecipe.model_fields.keys())
    content = with_soups(content, source.directory, source.called)
    recipe = validate(MergeRecipe, content, source.called).resolved(source.directory)
    recipe._notes = tuple(notes)
    return recipe


def merge_recipe(mapping: Mapping[str, Any], directory: str | Path = ".", source: str | Path = "recipe") -> MergeRecipe:
    """A recipe from plain values; `directory` is where relative paths start, `source` opens an error message.

    Raises:
        RecipeError: a key or a value is wrong; one line.
    """
    content, notes = understood(dict(mapping))
    content = with_soups(content, directory, source)
    recipe = validate(MergeRecipe, content, source).resolved(Path(directory))
    recipe._notes = tuple(notes)
    return recipe


# --- what a setting means for one tensor ---------------------------------------------------------------------------


def has_gradients(recipe: MergeRecipe) -> bool:
    """True where some parameter has a list of values over the depth, so that it matters in which layer a tensor is."""
    return any(_graded(setting) for held in (recipe, *recipe.models) for setting in held.parameters.values())


def _graded(setting: Setting) -> bool:
    if isinstance(setting, Conditional):
        return isinstance(setting.value, list)
    return isinstance(setting, list) and any(not isinstance(one, Conditional) or _graded(one) for one in setting)


def evaluate(setting: Setting, tensor: str, t: float) -> Scalar | None:
    """A parameter's value for one tensor, as mergekit resolves it.

    Args:
        setting: a scalar, a gradient (list of scalars over the depth), or conditions tried in order.
        tensor: the tensor's name, which filters are looked up in.
        t: depth in [0, 1]: layer/(layers − 1); 0 outside the stack of layers.

    Returns:
        The value; None where no condition applies.
    """
    if isinstance(setting, Conditional):
        setting = [setting]
    if not isinstance(setting, list):
        return setting
    for condition in setting:
        if isinstance(condition, Conditional) and (condition.filter in (None, "*") or condition.filter in tensor):
            return evaluate(condition.value, tensor, t)
    values = [value for value in setting if not isinstance(value, Conditional)]
    if not values:
        return None
    position = t * (len(values) - 1)
    low = int(position)
    high = min(len(values) - 1, low + 1)
    fraction = position - low
    first, second = values[low], values[high]
    if any(isinstance(v, (bool, str)) for v in values) or isinstance(first, str) or isinstance(second, str):
        return first
    return (1 - fraction) * first + fraction * second
