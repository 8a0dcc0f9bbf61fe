"""The study recipe: which models, which candidates, which metrics on which rows, and how one is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from mergetool.config.sources import resolve_source
from mergetool.config.strict_yaml import load_yaml, validate
from mergetool.evaluate.harness import HarnessTask
from mergetool.evaluate.metrics import METRICS
from mergetool.study.entries import MetricEntry, Strict
from mergetool.study.ranges import Range, SearchEntry, range_of, ranges_in, space_of

Number = int | float
Grid = Number | list[Number]
Shares = Number | list[Number | list[Number]]
Searched = Annotated[Grid | Range, BeforeValidator(range_of)]  # a range only where there is a `search`
SearchedShares = Annotated[Shares | Range, BeforeValidator(range_of)]
Along = list[Number] | dict[Literal["every"], int]


class FromAlign(Strict):
    """An RLHF model that this study makes: `align` names one of its align candidates, all of whose seeds are used."""

    align: str


class Models(Strict):
    """The triple. `sft` is the reference of every reward and the start of every alignment."""

    sft: str
    base: str | None = None
    rlhf: str | FromAlign | None = None


class MergeGrid(BaseModel):
    """Offline merges of SFT and RLHF. A list is a grid; lists multiply.

    weight w: share of RLHF, 1 - w of SFT. alpha: share of SFT, 1 - alpha of RLHF; give one of the two.
    A list within the list gives each part of the model a share of its own: `weight: [[0.2, 0.5, 0.8]]` splits the layers
    into three consecutive parts, the embeddings with the first and the final norm and the head with the last.
    parts: `parts: 3` makes every combination of the given shares over three parts.
    relative_to: what RLHF is a delta from, `base` or `sft`; see `offline.merge_recipe`. With `sft` both may be
    given, since the two deltas are then of two different things: alpha: 0 leaves SFT + w * F(RLHF - SFT).
    Every other key goes to the merge recipe's `parameters` (normalize, rescale, scope, lambda, ...).
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    merge_method: str
    weight: SearchedShares | None = None
    alpha: SearchedShares | None = None
    parts: int | None = Field(default=None, ge=2)
    relative_to: Literal["base", "sft"] = "base"
    seed: int | list[int] | None = None
    dtype: str | None = None

    @model_validator(mode="after")
    def _one_weight(self) -> MergeGrid:
        both_may_be = self.relative_to == "sft" and self.weight is not None
        if (self.weight is None) == (self.alpha is None) and not both_may_be:
            raise ValueError("give either weight (share of RLHF) or alpha (share of SFT); weight: [0.25, 0.5, 0.75]")
        for name in ("weight", "alpha"):
            value = getattr(self, name)
            ends = [value.low, value.high] if isinstance(value, Range) else [value] if value is not None else []
            for one in value if isinstance(value, list) else ends:
                some = one if isinstance(one, list) else [one]
                if not some or any(not 0 <= share <= 1 for share in some):
                    raise ValueError(f"{name} {one} is a share; give numbers from 0 to 1")
                if isinstance(one, list) and (self.parts or (both_may_be and self.alpha is not None)):
                    raise ValueError(f"{name} {one}: shares by part go neither with `parts` nor with a second share")
        if self.parts and any(isinstance(getattr(self, name), Range) for name in ("weight", "alpha")):
            raise ValueError("parts multiplies a list of shares; search over shares of whole models, or learn them: ama")
        return self


class AlignGrid(BaseModel):
    """Alignment runs. A list is a grid; lists multiply; several seeds of one point are one group, mean and spread.

    seed goes to both the trainer (data order) and the merging (masks). algorithm, beta and training override
    align_defaults. `every: total` merges once, at the last step. Every other key goes to the align recipe's `merging`
    (density, alpha, alpha_total, every, rescale, ...), which validates it.
    checkpoints: models along the run that become candidates of their own: shares of it, steps, or {every: N}.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    method: str
    seed: int | list[int] = 0
    algorithm: str | None = None
    beta: Searched | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    checkpoints: Along | None = None

    @field_validator("checkpoints")
    @classmethod
    def _places_in_a_run(cls, value: Along | None) -> Along | None:
        if isinstance(value, dict):
            if value.get("every", 0) < 1:
                raise ValueError("give {every: N} with N steps")
        elif value is not None:
            shares = [isinstance(one, float) and one < 1 for one in value]
            if not value or any(one <= 0 for one in value) or (any(shares) and not all(shares)):
                raise ValueError("give shares of the run between 0 and 1, [0.25, 0.5, 0.75], or whole steps, [100, 200]")
            if not all(shares) and not all(float(one).is_integer() for one in value):
                raise ValueError("a step is a whole number; a share of the run lies between 0 and 1")
        return value


class AmaGrid(BaseModel):
    """Ratios learned for each block, see `mergetool ama`. A list of `alpha` (mean share of SFT) or `blocks` is a grid.

    data: of the answers of high reward; the rows that align candidates train on where nothing is said.
    Every other key (embeddings, epsilon, penalty, training, reward, ...) goes to the AMA recipe, which validates it.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    alpha: Grid
    blocks: int | Literal["layers"] | list[int | Literal["layers"]] = 3
    data: dict[str, Any] | None = None


class CandidateEntry(Strict):
    """One line of `candidates`: a name and exactly one of merge, align, ama, checkpoint, recipe.

    checkpoint: a directory, a list of them, or a pattern like runs/x/checkpoint-*: then they are one run's, in order.
    search: with merge or align: its ranges and lists are searched instead of multiplied.
    """

    name: str = Field(min_length=1)
    family: str | None = None
    merge: MergeGrid | None = None
    align: AlignGrid | None = None
    ama: AmaGrid | None = None
    checkpoint: str | list[str] | None = None
    recipe: str | None = None
    search: SearchEntry | None = None

    @model_validator(mode="after")
    def _searched_or_multiplied(self) -> CandidateEntry:
        grid = self.merge or self.align
        if self.search is None:
            if grid is not None and (key := next(iter(ranges_in(grid)), None)):
                raise ValueError(f"'{self.name}': {key} is a range; add search: {{trials: 40}}, or give a list")
        elif grid is None:
            raise ValueError(f"'{self.name}' has a search and neither merge nor align; there is nothing to vary")
        elif self.align and self.align.checkpoints is not None:
            raise ValueError(f"'{self.name}' has both search and checkpoints; make two candidates of it")
        else:
            try:
                space_of(grid)
            except ValueError as error:
                raise ValueError(f"'{self.name}': {error}") from None
        return self

    @model_validator(mode="after")
    def _one_kind(self) -> CandidateEntry:
        kinds = ("merge", "align", "ama", "checkpoint", "recipe")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"'{self.name}' has {found} of {', '.join(kinds)}; give exactly one")
        return self


class Select(Strict):
    """The rule that chooses. keep_reward: the share of RLHF's gain in reward over SFT that the choice must keep."""

    keep_reward: float = Field(default=0.9, ge=0, le=1)


class Figure(Strict):
    """A picture of metrics over one swept knob, OUT/KNOB.png: one line a method.

    over: the knob, a key that candidates give a list of. metrics: ENTRY.METRIC, one panel each; without them the first
    of reward and tax. log: of the knob's axis; without it where its values span more than a decade.
    """

    over: str
    metrics: list[str] | None = Field(default=None, min_length=1, max_length=4)
    log: bool | None = None


class AlignDefaults(Strict):
    """What all align candidates share: see the align recipe."""

    algorithm: str = "dpo"
    beta: float | None = None
    reward: str | list[str] | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    dtype: str | None = None
    out_dtype: str | None = None


class StudyRecipe(Strict):
    """A study as the user wrote it; lists not yet multiplied, paths not yet resolved."""

    models: Models
    candidates: list[CandidateEntry] = Field(min_length=1)
    align_defaults: AlignDefaults = Field(default_factory=AlignDefaults)
    reward: list[MetricEntry] = Field(min_length=1)
    tax: list[MetricEntry] = Field(min_length=1)
    select_on: Literal["validation"] = "validation"
    select: Select = Field(default_factory=Select)
    figure: list[Figure] = Field(default_factory=list)
    name: str = "study"
    _directory: Path = PrivateAttr(default=Path("."))
    _commits: dict[tuple[str, str, str], str] = PrivateAttr(default_factory=dict)

    @field_validator("reward", "tax", "figure", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _fits_together(self) -> StudyRecipe:
        from mergetool.errors import nearest

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
        aligned = [entry.name for entry in self.candidates if entry.align]
        rlhf = self.models.rlhf
        if isinstance(rlhf, FromAlign) and rlhf.align in [entry.name for entry in self.candidates if entry.search]:
            raise ValueError(f"models.rlhf.align: '{rlhf.align}' is a search, and RLHF is one model; name another")
        if isinstance(rlhf, FromAlign) and rlhf.align not in aligned:
            raise ValueError(
                f"models.rlhf.align: no align candidate is called '{rlhf.align}'; "
                f"{nearest(rlhf.align, aligned) if aligned else 'add one to candidates'}"
            )
        if rlhf is None and any(entry.merge or entry.ama for entry in self.candidates):
            raise ValueError("merge and ama candidates need models.rlhf; give a checkpoint, or {align: NAME} of a candidate")
        return self

    @property
    def directory(self) -> Path:
        """Where relative paths start from."""
        return self._directory

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

    @property
    def commits(self) -> dict[tuple[str, str, str], str]:
        """What Hub ids stand for, as `mergetool.hub.pins` tells it; it travels with the recipe to workers."""
        return self._commits

    def pin(self, commits: dict[tuple[str, str, str], str]) -> None:
        """Say what Hub ids stand for in workers."""
        self._commits.update(commits)

    def reward_source(self, text: str) -> str:
        """`FILE.py:FUNCTION` or a reward model, as an align recipe that lies elsewhere can name it."""
        file, colon, function = text.rpartition(":")
        if colon and file.endswith(".py"):
            return f"{(self._directory / Path(file).expanduser()).absolute()}:{function}"
        return str(self.source(text))

    def source(self, text: str) -> Path | str:
        """A path or Hub id of this recipe, relative paths from the recipe's own directory, made absolute."""
        found = resolve_source(text, self._directory)
        return found.absolute() if isinstance(found, Path) else found


def make_study(mapping: Mapping[str, Any], source: str | Path = "study", directory: str | Path = ".") -> StudyRecipe:
    """A study from plain data; `directory` is where relative paths start.

    Raises:
        RecipeError: one line with the place and the nearest known key.
    """
    recipe = validate(StudyRecipe, dict(mapping), source)
    recipe._directory = Path(directory).absolute()
    return recipe


def load_study_recipe(path: str | Path) -> StudyRecipe:
    """Reads a study recipe.

    Raises:
        RecipeError: as `make_study`, or the file is missing or no YAML.
    """
    return make_study(load_yaml(path), path, Path(path).parent)
