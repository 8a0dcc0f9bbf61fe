"""The parts of a merge recipe: values of parameters, names of models, and the models, slices and modules that are merged."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_serializer, field_validator, model_validator

from mergetool.activations.recipe import CalibrationEntry
from mergetool.merge.dialect import with_values

Scalar = bool | int | float | str


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


ModelName = Annotated[str, BeforeValidator(reference_of, json_schema_input_type=str | dict[str, Any]), Field(min_length=1)]


class ModelEntry(BaseModel):
    """One model of a merge.

    Attributes:
        model: a directory, `lab:NAME`, a Hub id `org/name[@revision]`, or MODEL+ADAPTER.
        relative_to: the checkpoint that this model's task vector is a difference from; `base_model` by default.
        parameters: of the method, for this model alone.
        calibration: rows that this model's maps read, where each model has its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: ModelName
    relative_to: ModelName | None = None
    parameters: Parameters = Field(default_factory=dict)
    calibration: CalibrationEntry | None = None

    @field_validator("parameters", mode="before")
    @classmethod
    def _no_parameters(cls, value: Any) -> Any:
        return {} if value is None else with_values(value)

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        if isinstance(value, dict) and "revision" in value:  # mergekit ignores it, and merges another model than is meant
            raise ValueError(
                f"a revision is a part of the model's name; write `model: {value.get('model')}@{value['revision']}`"
            )
        return value

    @field_serializer("calibration")
    def _as_written(self, value: CalibrationEntry | None) -> str | dict[str, Any] | None:
        return None if value is None else value.written()


class SliceSource(ModelEntry):
    """Some layers of one model, from the first to the one before the last."""

    layer_range: tuple[int, int]

    @field_validator("layer_range")
    @classmethod
    def _forward(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= value[0] < value[1]:
            raise ValueError(f"layer_range {list(value)} holds no layer; write [FIRST, LAST + 1], counted from 0")
        return value


class SliceEntry(BaseModel):
    """Layers of the result that are merged of the same number of layers of each source."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sources: list[SliceSource] = Field(min_length=1)
    base_model: ModelName | None = None
    parameters: Parameters = Field(default_factory=dict)
    residual_weight: float | None = None

    @field_validator("parameters", mode="before")
    @classmethod
    def _no_parameters(cls, value: Any) -> Any:
        return {} if value is None else with_values(value)


class ModuleEntry(BaseModel):
    """A part of a model, merged by slices or whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    models: list[ModelEntry] = Field(default_factory=list)
    slices: list[SliceEntry] | None = None
    parameters: Parameters = Field(default_factory=dict)

    @field_validator("parameters", mode="before")
    @classmethod
    def _no_parameters(cls, value: Any) -> Any:
        return {} if value is None else with_values(value)

    @model_validator(mode="after")
    def _one_list_of_inputs(self) -> ModuleEntry:
        if bool(self.models) == bool(self.slices):
            raise ValueError("a module needs exactly one of models and slices; give one")
        return self
