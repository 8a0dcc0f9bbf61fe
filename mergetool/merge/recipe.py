"""The merge recipe: mergekit's own dialect, read strictly, with `relative_to`, `rescale`, `scope` and `seed` added.

A recipe holds what the user wrote and nothing else; what it means for each tensor is worked out by `plan`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from mergetool.config.settings import with_settings
from mergetool.config.sources import resolve_source
from mergetool.config.strict_yaml import validate
from mergetool.merge.dialect import dtype_name, understood, with_truths
from mergetool.merge.recipe_source import recipe_source

Scalar = bool | int | float | str
DTypeName = Annotated[Literal["float32", "float16", "bfloat16", "float64"], BeforeValidator(dtype_name)]


class Conditional(BaseModel):
    """A value for the tensors whose name contains `filter`; for all where there is none or it is ``*``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: Scalar | list[Scalar]
    filter: str | None = None


Setting = Scalar | Conditional | list[Scalar] | list[Conditional]
Parameters = dict[str, Setting]


def reference_of(value: Any) -> Any:
    """mergekit's mapping form of a model reference -> the text form ``path[@revision][+adapter]``."""
    if not isinstance(value, dict):
        return value
    unknown = set(value) - {"model", "path", "revision", "lora"}
    if unknown:
        raise ValueError(f"unknown key '{sorted(unknown)[0]}' in a model reference; known: model, path, revision, lora")
    if "path" in value:
        return f"{value['path']}@{value['revision']}" if value.get("revision") else value["path"]
    text = reference_of(value.get("model", ""))
    return f"{text}+{reference_of(value['lora'])}" if value.get("lora") else text


ModelName = Annotated[str, BeforeValidator(reference_of), Field(min_length=1)]


class ModelEntry(BaseModel):
    """One model of a merge, what it is a delta from, and its own parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: ModelName
    relative_to: ModelName | None = None
    parameters: Parameters = Field(default_factory=dict)

    @field_validator("parameters", mode="before")
    @classmethod
    def _no_parameters(cls, value: Any) -> Any:
        return {} if value is None else with_truths(value)


class MergeRecipe(BaseModel):
    """A merge as the user wrote it.

    `slices` and `modules` are kept as they are: they are mergekit's, and the plan hands them on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    merge_method: str
    models: list[ModelEntry] = Field(default_factory=list)
    base_model: ModelName | None = None
    parameters: Parameters = Field(default_factory=dict)
    dtype: DTypeName | None = None
    out_dtype: DTypeName | None = None
    tokenizer_source: ModelName | None = None
    chat_template: str | None = None
    slices: list[dict[str, Any]] | None = None
    modules: dict[str, Any] | None = None
    tokenizer: dict[str, Any] | None = None
    seed: int = 0
    name: str | None = None
    _notes: tuple[str, ...] = PrivateAttr(())

    @field_validator("parameters", mode="before")
    @classmethod
    def _no_parameters(cls, value: Any) -> Any:
        return {} if value is None else with_truths(value)

    @model_validator(mode="after")
    def _one_list_of_inputs(self) -> MergeRecipe:
        given = [key for key in ("models", "slices", "modules") if getattr(self, key)]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"a recipe needs exactly one of models, slices and modules, found {found}; give `models:`")
        return self

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the recipe was read past, a line each."""
        return self._notes

    def resolved(self, directory: str | Path) -> MergeRecipe:
        """The same recipe with every path that exists beside it made absolute; Hub ids stay as they are."""

        def place(text: str | None) -> str | None:
            return None if text is None else "+".join(str(resolve_source(part, directory)) for part in text.split("+"))

        models = [m.model_copy(update={"model": place(m.model), "relative_to": place(m.relative_to)}) for m in self.models]
        slices = self.slices
        if slices:
            slices = [
                {**s, "sources": [{**e, "model": place(reference_of(e["model"]))} if isinstance(e, dict) and "model" in e else e
                                  for e in s.get("sources") or []]} if isinstance(s, dict) else s
                for s in slices
            ]  # fmt: skip

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
        update = {"models": models, "base_model": place(self.base_model), "tokenizer_source": source,
                  "slices": slices, "tokenizer": tokenizer}  # fmt: skip
        return self.model_copy(update=update)

    def to_dict(self) -> dict[str, Any]:
        """What the user wrote, without defaults: for YAML and JSON."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude_none=True)


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
    recipe = validate(MergeRecipe, content, source.called).resolved(source.directory)
    recipe._notes = tuple(notes)
    return recipe


def merge_recipe(mapping: Mapping[str, Any], directory: str | Path = ".", source: str | Path = "recipe") -> MergeRecipe:
    """A recipe from plain values; `directory` is where relative paths start, `source` opens an error message.

    Raises:
        RecipeError: a key or a value is wrong; one line.
    """
    content, notes = understood(dict(mapping))
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
