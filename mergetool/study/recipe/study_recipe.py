"""The study recipe: which models, which candidates, which metrics on which rows, and how one is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from mergetool.config.settings import with_settings
from mergetool.config.strict_yaml import load_yaml, validate
from mergetool.errors import nearest
from mergetool.evaluate.harness import HarnessTask
from mergetool.evaluate.metrics import METRICS
from mergetool.study.candidates.kinds import KINDS, CandidateEntry
from mergetool.study.candidates.models import FromAlign, Strict, StudyModels
from mergetool.study.recipe.figures import Figure
from mergetool.study.recipe.metric_entries import MetricEntry


def _either_key(schema: dict[str, Any]) -> None:
    """What an editor is shown: `keep_gain` is a key too."""
    schema["properties"]["keep_gain"] = schema["properties"]["keep_reward"]


class Select(Strict):
    """The rule that chooses, see `mergetool.study.analysis.rule`.

    keep_reward (or keep_gain): the share of RLHF's gain over SFT that the choice must keep.
    rule: one_standard_error takes, of what cannot be told from the best, the one nearest to SFT; best takes the best mean.
    inputs: with goal all, candidates that are inputs beside SFT and RLHF.
    goal: trade asks for the best second axis among what keeps the gain; all weighs the first metric of each entry alike,
    each as a share between the worst and the best of SFT and RLHF.
    """

    model_config = ConfigDict(json_schema_extra=_either_key)
    keep_reward: float = Field(default=0.9, ge=0, le=1)
    rule: Literal["one_standard_error", "best"] = "one_standard_error"
    goal: Literal["trade", "all"] = "trade"
    inputs: list[str] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _either_word(cls, value: Any) -> Any:
        return _renamed(value, {"keep_gain": "keep_reward"})

    @property
    def weighs_all(self) -> bool:
        return self.goal == "all"


def _renamed(value: Any, words: dict[str, str]) -> Any:
    """A mapping whose keys may be written in another word; both at once are an error."""
    if not isinstance(value, dict):
        return value
    for new, old in words.items():
        if new in value and old in value:
            raise ValueError(f"'{new}' and '{old}' are two words for one thing; keep one of them")
    return {words.get(key, key): item for key, item in value.items()}


WORDS = {"reward": "gain", "tax": "keep"}
"""The axes, and the words under which any metric may stand on them."""


class StudyRecipe(StudyModels):
    """A study as the user wrote it; lists not yet multiplied, paths not yet resolved.

    gain and keep are what RLHF should be better at than SFT, and what should stay; any metric may stand on either. reward
    and tax are the same two axes in the words of alignment, for metrics of that side alone.
    With `goal: all` keep may be left out: then the second axis is the distance from SFT.
    against: the family whose front other candidates are held against, at their own reward.
    """

    candidates: list[CandidateEntry] = Field(min_length=1)
    reward: list[MetricEntry] = Field(default_factory=list)
    gain: list[MetricEntry] = Field(default_factory=list)
    tax: list[MetricEntry] = Field(default_factory=list)
    keep: list[MetricEntry] = Field(default_factory=list)
    select_on: Literal["validation"] = "validation"
    select: Select = Field(default_factory=Select)
    figure: list[Figure] = Field(default_factory=list)
    against: str = "linear"
    name: str = "study"

    @field_validator("reward", "gain", "tax", "keep", mode="before", json_schema_input_type=MetricEntry | list[MetricEntry])
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @field_validator("figure", mode="before", json_schema_input_type=Figure | list[Figure])
    @classmethod
    def _one_figure_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _fits_together(self) -> StudyRecipe:
        for side, word in WORDS.items():
            given = [key for key in (side, word) if getattr(self, key)]
            if len(given) > 1:
                raise ValueError(f"'{word}' and '{side}' are two words for one axis; keep one of them:")
            if not given and not (side == "tax" and self.select.weighs_all):
                raise ValueError(f"{side} is required, but missing; add `{side}:`, or `{word}:` for any metric:")
            for entry in getattr(self, side):
                if wrong := [name for name in entry.metrics if METRICS[name].side != side]:
                    raise ValueError(
                        f"{side}: '{wrong[0]}' measures {METRICS[wrong[0]].side}; move it there, or write `{word}:` for {side}:"
                    )
        labels = [entry.label for side in WORDS for entry in self.on_axis(side)]
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

    def on_axis(self, side: str) -> list[MetricEntry]:
        """The entries of an axis, "reward" or "tax", in whichever word they were written."""
        return getattr(self, side) or getattr(self, WORDS[side])

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
