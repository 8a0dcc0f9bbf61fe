"""The align recipe: what may be written in it, and what it means where nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from mergetool.activations.recipe import CalibrationEntry
from mergetool.align.algorithm_row import Algorithm
from mergetool.align.algorithms import ALGORITHMS
from mergetool.align.baselines import BASELINES, Baseline
from mergetool.align.stay import Rows
from mergetool.config.settings import with_settings
from mergetool.config.sources import resolve_source
from mergetool.config.strict_yaml import load_yaml, validate
from mergetool.methods import TRAININGS, Training

if TYPE_CHECKING:
    from mergetool.ops.projection import Rule

    AlgorithmName: TypeAlias = str
    Method: TypeAlias = str
else:  # the tables say which names there are
    AlgorithmName = Literal[tuple(ALGORITHMS)]

# Which keys each method has. What a recipe leaves out keeps the optimizer's own default.
KEYS: dict[str, frozenset[str]] = {name: row.keys for name, row in (*TRAININGS.items(), *BASELINES.items())}
if not TYPE_CHECKING:
    Method = Literal[tuple(KEYS)]


def takes_seed(method: str) -> bool:
    """Whether `merging.seed` may be given beside `merging.method`; an unknown method is for the recipe to refuse."""
    return method not in KEYS or "seed" in KEYS[method]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(_Strict):
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


class Merging(_Strict):
    """How the SFT delta is merged into the optimizer's steps; METHODS.md has the symbols.

    Attributes:
        method: `adamw` merges nothing; the others are `mergetool.optim`'s.
        density: p, the fraction of entries kept.
        alpha: weight of the SFT delta at each merge.
        alpha_total: the same, summed over the run: alpha = alpha_total / number of merges.
        every: K, merge at every K-th step; `total` merges once, at the end. Of `ogpsa`, compute the rows' gradients anew; of
            averages, look at the weights; of `elastic_reset`, reset them.
        statistic: of `onties`: what an update's entries are ranked by, their own magnitude or Adam's momentum (MoFO).
        rescale, tau_mask, elect, clip: see docs/methods.md, "Divergences".
        seed: of the masks, and of the order of `rows`. The order of the data has `training.seed`.
        rounding: how a weight takes an update below its own precision.
        storage: where theta_b and theta_s lie meanwhile: memory-mapped, or loaded.
        compile: whether torch.compile makes one pass over memory of a step; by default where it pays.
        coefficient: of `ema` and `elastic_reset`, the weight of the newest weights in the average.
        since: of `sma` and `bema`, where the average begins: a share of the run below 1, else a step.
        lag, multiplier, ema_power, bias_power: of `bema`, see `mergetool.align.averages.Bema`.
        strength: of the penalties `l2`, strength/2 * |theta - theta_s|^2, and `l1`, strength * |theta - theta_s|_1; of
            `onnullspace`, how much is left of what the calibration's rows see: the larger, the more.
        rank, lora_alpha: of `lora`; `rank` of `onnullspace` with kind hard, the eigenvectors that are taken away.
        kind, threshold, energy, project, only, skip: of `onnullspace`, see `mergetool.optim.OnNullSpace`; `project` of `ogpsa`.
        rows: of `replay`, `lwf`, `ewc` and `ogpsa`: the rows whose outputs should stay.
        lambda_: `lambda` in a recipe, the weight of what these add to the loss; default 1.
        batch_size: of `replay` and `lwf`: rows at each micro step and device; default: as many as of the data.
            Of `ogpsa`, rows of one backward pass.
    """

    method: Method = "adamw"
    density: Annotated[float, Field(gt=0, le=1)] | None = None
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    alpha_total: Annotated[float, Field(ge=0)] | None = None
    every: Annotated[int, Field(ge=1)] | Literal["total"] | None = None
    rescale: Literal["unbiased", "l1", "none"] | None = None
    tau_mask: Literal["resample", "fixed"] | None = None
    elect: Literal["weighted", "unweighted"] | None = None
    statistic: Literal["delta", "momentum"] | None = None
    clip: Annotated[float, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    rounding: Literal["stochastic", "nearest"] | None = None
    storage: Literal["mmap", "cpu", "memory"] | None = None
    compile: bool | None = None
    coefficient: Annotated[float, Field(gt=0, le=1)] | None = None
    since: Annotated[float, Field(ge=0)] | None = None
    lag: Annotated[float, Field(ge=1)] | None = None
    multiplier: Annotated[float, Field(ge=0)] | None = None
    ema_power: Annotated[float, Field(ge=0)] | None = None
    bias_power: Annotated[float, Field(ge=0)] | None = None
    strength: Annotated[float, Field(ge=0)] | None = None
    rank: Annotated[int, Field(gt=0)] | None = None
    lora_alpha: Annotated[float, Field(gt=0)] | None = None
    kind: Literal["soft", "hard"] | None = None
    threshold: Annotated[float, Field(ge=0, lt=1)] | None = None
    energy: Annotated[float, Field(gt=0, le=1)] | None = None
    project: Literal["update", "gradient"] | None = None
    only: str | None = None
    skip: str | None = None
    rows: Rows | None = None
    lambda_: Annotated[float, Field(ge=0)] | None = Field(default=None, alias="lambda")
    batch_size: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _fits_the_method(self) -> Merging:
        given = set(self.given())
        foreign = sorted(given - KEYS[self.method])
        if foreign:
            known = ", ".join(sorted(KEYS[self.method])) or "none"
            raise ValueError(f"'{foreign[0]}' is not an option of method {self.method}; its options: {known}")
        if self.baseline is not None and self.baseline.needs_rows and self.rows is None:
            raise ValueError(f"{self.method} needs to know what should stay; add `rows: {{data: ...}}`")
        if self.baseline is not None and (missing := sorted(self.baseline.required - given)):
            raise ValueError(f"{self.method} has no default for {missing[0]}; add `{missing[0]}:`")
        if self.since is not None and self.since >= 1 and not self.since.is_integer():
            raise ValueError(f"since {self.since:g}: a step is a whole number; a share of the run lies below 1")
        if {"alpha", "alpha_total"} <= given:
            raise ValueError("alpha and alpha_total are both given; keep one of them")
        if self.training is not None and self.training.mixes and not {"alpha", "alpha_total"} & given:
            raise ValueError(
                f"{self.method} needs to know how much to merge; give alpha (at each merge, 1e-6 in the "
                "paper) or alpha_total (over the run), and 0 for the mask alone"
            )
        return self

    def given(self) -> dict[str, Any]:
        """The settings that the recipe has, without the method."""
        return self.model_dump(by_alias=True, exclude_none=True, exclude={"method"})

    @property
    def needs_base(self) -> bool:
        """True where tau_s is merged, so that base_model must be known."""
        return self.training is not None and self.training.merges_delta and bool(self.alpha or self.alpha_total)

    @property
    def adds(self) -> bool:
        """True where a merge may add something to an update; a method that projects only takes."""
        return self.training is not None and not self.training.online.calibrated

    @property
    def needs_calibration(self) -> bool:
        """True where updates are projected, so that a calibration of theta_s must be known."""
        return self.training is not None and self.training.online.calibrated

    def rule(self) -> Rule:
        """Which projection of a calibration's moments the method makes."""
        from mergetool.ops.projection import rule_of

        row = self.training
        assert row is not None  # asked of methods that project
        return rule_of({**row.online.settings, **self.given(), **(row.given or {})})

    @property
    def training(self) -> Training | None:
        """The method's row among those that merge while they train; None of a baseline."""
        return TRAININGS.get(self.method)

    @property
    def baseline(self) -> Baseline | None:
        """The method's row among the baselines; None of a method that merges."""
        return BASELINES.get(self.method)


class AlignRecipe(_Strict):
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
    training: dict[str, Any] = {}
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
