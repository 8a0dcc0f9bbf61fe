"""The align recipe: what may be written in it, and what it means where nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field, PrivateAttr, model_validator

from mergetool.activations.recipe import CalibrationEntry
from mergetool.align.algorithm_row import Algorithm
from mergetool.align.algorithms import ALGORITHMS
from mergetool.align.merging import Merging, Strict
from mergetool.config.settings import with_settings
from mergetool.config.sources import resolve_source
from mergetool.config.strict_yaml import load_yaml, validate

if TYPE_CHECKING:
    AlgorithmName: TypeAlias = str
else:  # the tables say which names there are
    AlgorithmName = Literal[tuple(ALGORITHMS)]


class Data(Strict):
    """Where the rows come from.

    Attributes:
        train, eval: a file, `lab:NAME`, or a Hub id `org/name[:split]`.
        limit, eval_limit: use no more than this many pairs.
        max_length: tokens of prompt and answer together; what is longer is cut at the end.
    """

    train: str = Field(min_length=1)
    eval: str | None = None
    limit: Annotated[int, Field(gt=0)] | None = None
    eval_limit: Annotated[int, Field(gt=0)] | None = None
    max_length: Annotated[int, Field(gt=1)] | None = None


class AlignRecipe(Strict):
    """One training run.

    Attributes:
        base_model: theta_b; needed by the methods that merge tau_s.
        sft_model: theta_s, the reference and the initial policy.
        policy: where training starts, of algorithms whose teacher is the SFT model; all others start at the SFT model.
        algorithm, beta: the loss, and its pull toward the reference: the table of docs/align.md says of which algorithms.
        reward: of algorithms that sample answers to be rewarded: `FILE.py:FUNCTION` or a sequence-classification
            checkpoint, or a list of them.
        data, merging: see Data and Merging.
        calibration: of theta_s, for methods that project: a file of `mergetool calibrate`, or the rows to make one from.
        training: any field of TRL's config for the algorithm; checked by it, see `training.training_config`.
        dtype: of the weights while they are trained. bfloat16 halves the memory; `training.bf16` is autocast.
        out_dtype: of the written weights; default: the SFT checkpoint's own.
    """

    base_model: str | None = None
    sft_model: str = Field(min_length=1)
    policy: Annotated[str, Field(min_length=1)] | None = None
    algorithm: AlgorithmName = "dpo"
    beta: Annotated[float, Field(ge=0)] = 0.1
    reward: str | list[str] | None = None
    data: Data
    merging: Merging = Merging()
    calibration: CalibrationEntry | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    dtype: Literal["float32", "bfloat16"] = "float32"
    out_dtype: Literal["float32", "bfloat16", "float16"] | None = None

    _directory: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _base_where_needed(self) -> AlignRecipe:
        if self.merging.needs_base and self.base_model is None:
            raise ValueError(f"base_model is missing, and {self.merging.method} merges sft - base; add `base_model:`")
        return self

    @model_validator(mode="after")
    def _calibration_where_needed(self) -> AlignRecipe:
        if self.merging.needs_calibration and self.calibration is None:
            raise ValueError(
                f"calibration is missing, and {self.merging.method} needs to know what should stay; "
                "add `calibration: {data: ROWS}`"
            )
        if self.calibration is not None and not self.merging.needs_calibration:
            raise ValueError(f"calibration is given, and {self.merging.method} reads none; remove it")
        return self

    @model_validator(mode="after")
    def _reward_where_one_is_needed(self) -> AlignRecipe:
        if self.algorithm_row.rewarded and not self.reward:
            raise ValueError(f"reward is missing, and {self.algorithm} needs to know what an answer is worth; add `reward:`")
        if not self.algorithm_row.rewarded and self.reward:
            raise ValueError(f"reward is given, and {self.algorithm} samples no answers; remove it")
        return self

    @model_validator(mode="after")
    def _policy_where_one_is_taught(self) -> AlignRecipe:
        taught = self.algorithm_row.taught
        if taught and self.policy is None:
            raise ValueError(
                f"policy is missing, and {self.algorithm} teaches a policy what the SFT model does; "
                "add `policy:`, the model that training starts from"
            )
        if not taught and self.policy is not None:
            raise ValueError(f"policy is given, and {self.algorithm} starts from the SFT model; remove it")
        return self

    @model_validator(mode="after")
    def _beta_that_pulls(self) -> AlignRecipe:
        if self.beta == 0 and not self.algorithm_row.zero_beta:
            raise ValueError(f"beta is 0, and {self.algorithm} divides by it or learns nothing; give more than 0")
        return self

    @model_validator(mode="after")
    def _method_that_fits_what_is_trained(self) -> AlignRecipe:
        baseline = self.merging.baseline
        if self.algorithm_row.scores and baseline is not None and baseline.needs_rows:
            raise ValueError(
                f"merging.method: {baseline.name} keeps what a model writes, and {self.algorithm} trains a model that "
                "writes nothing; take another method"
            )
        return self

    @property
    def algorithm_row(self) -> Algorithm:
        """What the table says of the algorithm."""
        return ALGORITHMS[self.algorithm]

    @property
    def directory(self) -> Path:
        """Where relative paths start from."""
        return self._directory

    @property
    def base(self) -> Path | str | None:
        """theta_b as a path, or as a Hub id."""
        return None if self.base_model is None else resolve_source(self.base_model, self._directory)

    @property
    def sft(self) -> Path | str:
        """theta_s as a path, or as a Hub id."""
        return resolve_source(self.sft_model, self._directory)

    @property
    def start(self) -> Path | str:
        """Where training starts, as a path, or as a Hub id: theta_s, but for a policy that is taught."""
        return self.sft if self.policy is None else resolve_source(self.policy, self._directory)

    @property
    def train_data(self) -> Path | str:
        """The training rows as a path, or as a Hub id."""
        return resolve_source(self.data.train, self._directory)

    @property
    def eval_data(self) -> Path | str | None:
        """The evaluation rows as a path, or as a Hub id."""
        return None if self.data.eval is None else resolve_source(self.data.eval, self._directory)

    @property
    def calibrated_on(self) -> CalibrationEntry | None:
        """`calibration`, its paths made absolute."""
        return None if self.calibration is None else self.calibration.resolved(self._directory)

    def as_written(self) -> dict[str, Any]:
        """The recipe as plain YAML-ready values, without what was left out; read again, it is this recipe."""
        written = self.model_dump(mode="json", exclude_none=True, by_alias=True)
        if self.algorithm_row.beta != "always" and "beta" not in self.model_fields_set:
            del written["beta"]  # to be written it has to mean something, and to the algorithm it may mean another loss
        return written if self.calibration is None else written | {"calibration": self.calibration.written()}


def load_align_recipe(path: str | Path, settings: Sequence[str] = ()) -> AlignRecipe:
    """Reads and checks a recipe; relative paths in it start from its own directory.

    Args:
        path: of the file.
        settings: values set anew, see `config.settings`.

    Raises:
        RecipeError: one line with every problem found.
    """
    path = Path(path)
    return align_recipe(with_settings(load_yaml(path), settings), path.parent, path.name)


def align_recipe(mapping: Mapping[str, Any], directory: str | Path = ".", source: str = "recipe") -> AlignRecipe:
    """Makes a recipe of plain values.

    Args:
        mapping: what the YAML would say.
        directory: where relative paths start from.
        source: the name that opens an error message.

    Raises:
        RecipeError: one line with every problem found.
    """
    recipe = validate(AlignRecipe, dict(mapping), source)
    recipe._directory = Path(directory).absolute()
    return recipe


def override(recipe: AlignRecipe, **changes: Any) -> AlignRecipe:
    """The recipe with some values changed and everything checked again.

    Args:
        changes: top-level keys. A mapping changes the keys that it names and keeps the others, except `merging` where
            it names a method: options of another method would not fit, so it then replaces the whole part.

    Raises:
        RecipeError: the changed recipe is not valid.
    """
    merged = recipe.as_written()
    for key, value in changes.items():
        if isinstance(value, Mapping) and not (key == "merging" and "method" in value):
            merged[key] = {**merged.get(key, {}), **value}
        else:
            merged[key] = value
    return align_recipe(merged, recipe._directory, "recipe with overrides")
