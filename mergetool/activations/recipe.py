"""`calibration:` of a recipe: a file that `mergetool calibrate` made, or the rows to make one from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mergetool.checkpoint.content import sha256_of
from mergetool.config.sources import resolve_source
from mergetool.data import input_rows
from mergetool.errors import CheckpointError, OutputError, RecipeError
from mergetool.files import Lock, cache_directory
from mergetool.fingerprints import checkpoint_identity, data_identity

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

    from mergetool.activations.artifact import Calibration
    from mergetool.activations.fisher_file import FisherFile
    from mergetool.ops.projection import Rule

FIRST_ROWS = 8  # enough to see a wrong file; the rest is read when the calibration is made
_PATIENCE = 24 * 3600.0


class CalibrationEntry(BaseModel):
    """Which calibration: `calibration: FILE` in a recipe, or a mapping with `data`.

    Attributes:
        file: what `mergetool calibrate` wrote.
        data: rows of what should stay: files, ``lab:NAME`` or Hub ids; one or a list.
        limit: rows read of each source.
        rank, energy: eigenvectors kept of each map: the fewest that hold `energy` of the trace, at most `rank`.
        max_length: tokens of a row; what is longer loses its end.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str | None = None
    data: list[str] = Field(default_factory=list)
    limit: Annotated[int, Field(gt=0)] = 1024
    rank: Annotated[int, Field(gt=0)] = 64
    energy: Annotated[float, Field(gt=0, le=1)] = 0.999
    max_length: Annotated[int, Field(gt=0)] = 1024

    @model_validator(mode="before")
    @classmethod
    def _from_a_path(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        mapping = handler.resolve_ref_schema(handler(core))
        path = {"type": "string", "description": "What `mergetool calibrate` wrote."}
        whole = {"description": mapping.pop("description", ""), "anyOf": [path, {**mapping}]}
        mapping.clear()
        mapping.update(whole)
        return mapping

    @field_validator("data", mode="before", json_schema_input_type=str | list[str])
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_of_two(self) -> CalibrationEntry:
        if bool(self.data) == bool(self.file):
            raise ValueError("give rows (data), or the path of a calibration in place of all of it")
        return self

    def resolved(self, directory: str | Path) -> CalibrationEntry:
        """The same with absolute paths; relative ones start from `directory`."""

        def place(text: str) -> str:
            found = resolve_source(text, directory)
            return os.path.abspath(found) if isinstance(found, Path) else found

        # a name that is no path is for `data` alone: a calibration lies on this disk
        file = None if self.file is None else os.path.abspath(Path(directory) / Path(self.file).expanduser())
        return self.model_copy(update={"file": file, "data": [place(one) for one in self.data]})

    def written(self) -> str | dict[str, Any]:
        """As a recipe has it."""
        return self.file if self.file is not None else self.model_dump(exclude={"file"}, exclude_defaults=True)

    @property
    def sources(self) -> list[Path | str]:
        """Where the rows are; paths resolved."""
        return [resolve_source(one, ".") for one in self.data]

    def identity(self) -> Any:
        """What it is by content: of a file its bytes, else the rows' and the settings."""
        if self.file is not None:
            return ["file", sha256_of(Path(self.file))]
        rows = [data_identity(source) for source in self.sources]
        return ["rows", rows, self.limit, self.rank, self.energy, self.max_length]

    def check(self, parameters: Iterable[tuple[str, tuple[int, ...]]], rules: Iterable[Rule]) -> None:
        """Refuses what can be known to be unfit without weights.

        Args:
            parameters: (name, shape) of every tensor of the model.
            rules: what it will be used for.

        Raises:
            CheckpointError: there is no such file, or it is of another model. RecipeError: it holds too few eigenvectors.
            DataError: a row cannot be read, or there is none.
        """
        from mergetool.activations.artifact import Calibration

        if self.file is not None:
            opened, parameters = Calibration.load(self.file), list(parameters)
            for rule in dict.fromkeys(rules):
                opened.check(parameters, rule)
            return
        for source in self.sources:
            if isinstance(source, Path):
                input_rows(source, FIRST_ROWS)

    def cost(self, model: str | Path) -> dict[str, Any]:
        """What `check` says of making it from rows: memory with the model in it, bytes, and passes over the rows.

        Raises:
            CheckpointError: transformers cannot make a model of the checkpoint.
        """
        from mergetool.activations.cost import estimate

        found = estimate(model, self.rank)
        return {
            "bytes_of_calibration_memory": found.model_bytes + found.group_bytes,
            "calibration": {"data": self.data, "limit": self.limit, "rank": self.rank, "passes over the rows": found.passes},
        }

    def check_answers(self) -> None:
        """Refuses what can be known without weights to give no Fisher information.

        Raises:
            RecipeError: it is a file. DataError: a row cannot be read, has no answer, or there is none.
        """
        from mergetool.activations.rows import rows_with_answers

        if self.file is not None:
            raise RecipeError(
                f"calibration: {self.file}: a file of mergetool calibrate holds second moments, and no Fisher information",
                "give rows with answers: `calibration: {data: ROWS}`",
            )
        for source in self.sources:
            if isinstance(source, Path):
                rows_with_answers(source, FIRST_ROWS)

    def cost_of_fisher(self, model: str | Path) -> dict[str, Any]:
        """As `cost`, of the model's Fisher information on the rows.

        Raises:
            CheckpointError: transformers cannot make a model of the checkpoint.
        """
        from mergetool.activations.cost import fisher_estimate

        found = fisher_estimate(model)
        return {
            "bytes_of_calibration_memory": found.model_bytes + found.group_bytes,
            "bytes_of_cache": found.model_bytes,
            "calibration": {"data": self.data, "limit": self.limit, "passes over the rows": found.passes},
        }

    def obtain_fisher(self, model: str | Path, progress: Any = None) -> tuple[FisherFile, dict[str, Any]]:
        """The Fisher information of a model on the rows, found in the user's cache or made now and kept there.

        Args:
            model: the checkpoint that it is of.
            progress: called with (rows done, rows in all passes, what is being done).

        Returns:
            The file, and the facts of it: model, rows and their number.

        Raises:
            CheckpointError: the model cannot be used. DataError: no row is usable. OutputError: the cache cannot be written.
        """
        import torch

        from mergetool.activations.fisher_file import fisher_key, kept_fisher
        from mergetool.activations.rows import answer_rows, shown
        from mergetool.hub.loading import load_model

        rows, told = answer_rows(model, self.sources, self.limit, self.max_length)
        facts: dict[str, Any] = {
            "model": {"source": shown(model), "identity": checkpoint_identity(model)},
            "rows": {"sources": [shown(one) for one in self.sources], **told},
            "max_length": self.max_length,
        }
        device = "cuda" if torch.cuda.is_available() else "cpu"

        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress(done, total, f"Fisher information of {shown(model)}")

        key = fisher_key(model, rows, device)
        return kept_fisher(key, rows, lambda: load_model(model, device, "float32"), facts, tell), facts

    def obtain(self, model: str | Path, progress: Any = None, identity: str | None = None) -> Calibration:
        """The calibration of a model: opened, found in the user's cache, or made now and kept there.

        Args:
            model: the checkpoint that it is of.
            progress: called with (tokens done, tokens in all, what is being done).
            identity: of the model, where that is known.

        Raises:
            CheckpointError: it is of another model, or the model cannot be used. DataError: no row is usable.
        """
        from mergetool.activations.artifact import Calibration
        from mergetool.activations.run import calibrate, inputs_of

        if self.file is not None:
            opened = Calibration.load(self.file)
            opened.check_model(identity or checkpoint_identity(model), str(model))
            return opened
        asked = inputs_of(model, self.sources, self.rank, self.energy, self.limit, self.max_length)
        place = cache_directory("calibrations") / f"{asked.fingerprint}.safetensors"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{place.parent}: cannot be made ({error.strerror})",
                "set MERGETOOL_CACHE to a directory that can be written to",
            ) from None
        lock = Lock(place.with_suffix(".lock"))
        lock.take(_PATIENCE)  # two runs that need the same one make it once
        try:
            if place.exists():
                try:
                    return Calibration.load(place)
                except CheckpointError:  # damaged: made anew
                    place.unlink()
            told = progress or (lambda done, total, what: None)
            return calibrate(
                model, self.sources, place, rank=self.rank, energy=self.energy, limit=self.limit,
                max_length=self.max_length, progress=told, inputs=asked,
            ).calibration  # fmt: skip
        finally:
            lock.release()
