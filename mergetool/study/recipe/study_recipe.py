"""The study recipe: which models, which candidates, which metrics on which rows, and how one is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mergetool.config.settings import with_settings
from mergetool.config.strict_yaml import load_yaml, validate
from mergetool.errors import nearest
from mergetool.evaluate.harness import HarnessTask
from mergetool.evaluate.metrics import METRICS
from mergetool.study.candidates.kinds import KINDS, CandidateEntry
from mergetool.study.candidates.models import FromAlign, Strict, StudyModels
from mergetool.study.recipe.figures import Figure
from mergetool.study.recipe.metric_entries import MetricEntry


class Select(Strict):
    """The rule that chooses. keep_reward: the share of RLHF's gain in reward over SFT that the choice must keep."""

    keep_reward: float = Field(default=0.9, ge=0, le=1)


class StudyRecipe(StudyModels):
    """A study as the user wrote it; lists not yet multiplied, paths not yet resolved."""

    candidates: list[CandidateEntry] = Field(min_length=1)
    reward: list[MetricEntry] = Field(min_length=1)
    tax: list[MetricEntry] = Field(min_length=1)
    select_on: Literal["validation"] = "validation"
    select: Select = Field(default_factory=Select)
    figure: list[Figure] = Field(default_factory=list)
    name: str = "study"

    @field_validator("reward", "tax", mode="before", json_schema_input_type=MetricEntry | list[MetricEntry])
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @field_validator("figure", mode="before", json_schema_input_type=Figure | list[Figure])
    @classmethod
    def _one_figure_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _fits_together(self) -> StudyRecipe:
        for side in ("reward", "tax"):
            for entry in getattr(self, side):
                if wrong := [name for name in entry.metrics if METRICS[name].side != side]:
                    raise ValueError(f"{side}: '{wrong[0]}' measures {METRICS[wrong[0]].side}; move it there")
        labels = [entry.label for entry in [*self.reward, *self.tax]]
        if twice := next((label for label in labels if labels.count(label) > 1), None):
            raise ValueError(f"two metric entries are called '{twice}'; give one of them another name:")
        names = [entry.name for entry in self.candidates]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two candidates are called '{twice}'; rename one, or give both one family:")
        reserved = {"sft", "base", "rlhf"} & set(names)
        if reserved:
            raise ValueError(f"a candidate may not be called '{reserved.pop()}'; that is one of models:, rename it")
        trainings = [entry.name for entry in self.candidates if entry.candidate_class.is_training]
        rlhf = self.models.rlhf
        if isinstance(rlhf, FromAlign) and rlhf.align in [entry.name for entry in self.candidates if entry.search]:
            raise ValueError(f"models.rlhf.align: '{rlhf.align}' is a search, and RLHF is one model; name another")
        if isinstance(rlhf, FromAlign) and rlhf.align not in trainings:
            raise ValueError(
                f"models.rlhf.align: no align candidate is called '{rlhf.align}'; "
                f"{nearest(rlhf.align, trainings) if trainings else 'add one to candidates'}"
            )
        if rlhf is None and any(entry.candidate_class.needs_rlhf for entry in self.candidates):
            needy = " and ".join(key for key, kind in KINDS.items() if kind.needs_rlhf)
            raise ValueError(f"{needy} candidates need models.rlhf; give a checkpoint, or {{align: NAME}} of a candidate")
        return self

    def harness_task(self, entry: MetricEntry) -> HarnessTask:
        """The public benchmarks of an entry; `include` starts from the recipe's directory."""
        folders = [entry.include] if isinstance(entry.include, str) else entry.include or []
        return HarnessTask(
            entry.label,
            tuple(entry.tasks),
            num_fewshot=entry.num_fewshot,
            limit=entry.limit,
            chat=entry.chat,
            include=tuple((self._directory / Path(folder).expanduser()).absolute() for folder in folders),
            unsafe_code=entry.unsafe_code,
            batch_size=entry.batch_size,
        )


def make_study(mapping: Mapping[str, Any], source: str | Path = "study", directory: str | Path = ".") -> StudyRecipe:
    """A study from plain data; `directory` is where relative paths start.

    Raises:
        RecipeError: one line with the place and the nearest known key.
    """
    recipe = validate(StudyRecipe, dict(mapping), source)
    recipe._directory = Path(directory).absolute()
    return recipe


def load_study_recipe(path: str | Path, settings: Sequence[str] = ()) -> StudyRecipe:
    """Reads a study recipe; `settings` are values set anew, see `config.settings`.

    Raises:
        RecipeError: as `make_study`, or the file is missing or no YAML.
    """
    return make_study(with_settings(load_yaml(path), settings), path, Path(path).parent)
