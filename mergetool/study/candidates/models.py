"""The models of a study, and what its candidates may ask of it: sources, rewards, defaults of alignment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from mergetool.activations.recipe import CalibrationEntry
from mergetool.config.sources import resolve_source


class Strict(BaseModel):
    """A part of a recipe: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FromAlign(Strict):
    """An RLHF model that this study makes: `align` names one of its align candidates, all of whose seeds are used."""

    align: str


class Models(Strict):
    """The triple. `sft` is the reference of every reward and the start of every alignment."""

    sft: str
    base: str | None = None
    rlhf: str | FromAlign | None = None


class AlignDefaults(Strict):
    """What all align candidates share: see the align recipe."""

    algorithm: str = "dpo"
    beta: float | None = None
    reward: str | list[str] | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    dtype: str | None = None
    out_dtype: str | None = None


class StudyModels(Strict):
    """The part of a study that candidates are made from; paths not yet resolved."""

    models: Models
    align_defaults: AlignDefaults = Field(default_factory=AlignDefaults)
    calibration: CalibrationEntry | None = None
    _directory: Path = PrivateAttr(default=Path("."))
    _commits: dict[tuple[str, str, str], str] = PrivateAttr(default_factory=dict)

    @property
    def directory(self) -> Path:
        """Where relative paths start from."""
        return self._directory

    @property
    def commits(self) -> dict[tuple[str, str, str], str]:
        """What Hub ids stand for, as `mergetool.hub.pins` tells it; it travels with the recipe to workers."""
        return self._commits

    def pin(self, commits: dict[tuple[str, str, str], str]) -> None:
        """Say what Hub ids stand for in workers."""
        self._commits.update(commits)

    def source(self, text: str) -> Path | str:
        """A path or Hub id of this recipe, relative paths from the recipe's own directory, made absolute."""
        found = resolve_source(text, self._directory)
        return found.absolute() if isinstance(found, Path) else found

    def calibration_for(self, own: CalibrationEntry | None) -> str | dict[str, Any] | None:
        """The calibration of a candidate that projects, as its recipe has it: its own, else the study's; paths resolved."""
        found = own or self.calibration
        return None if found is None else found.resolved(self._directory).written()

    def reward_source(self, text: str) -> str:
        """`FILE.py:FUNCTION` or a reward model, as an align recipe that lies elsewhere can name it."""
        file, colon, function = text.rpartition(":")
        if colon and file.endswith(".py"):
            return f"{(self._directory / Path(file).expanduser()).absolute()}:{function}"
        return str(self.source(text))

    def sources(self) -> dict[str, Path | str]:
        """The checkpoints that the recipes of candidates call SFT, BASE and RLHF; those that the study is given."""
        found = {"SFT": self.source(self.models.sft)}
        if self.models.base:
            found["BASE"] = self.source(self.models.base)
        if isinstance(self.models.rlhf, str):
            found["RLHF"] = self.source(self.models.rlhf)
        return found
