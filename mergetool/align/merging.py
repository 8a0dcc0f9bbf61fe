"""`merging:` of an align recipe: the method, and what may be set for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mergetool.align.baselines import BASELINES, Baseline
from mergetool.align.stay import Rows
from mergetool.methods import TRAININGS, Training

if TYPE_CHECKING:
    from mergetool.ops.projection import Rule

    Method: TypeAlias = str

# Which keys each method has. What a recipe leaves out keeps the optimizer's own default.
KEYS: dict[str, frozenset[str]] = {name: row.keys for name, row in (*TRAININGS.items(), *BASELINES.items())}
if not TYPE_CHECKING:
    Method = Literal[tuple(KEYS)]


def takes_seed(method: str) -> bool:
    """Whether `merging.seed` may be given beside `merging.method`; an unknown method is for the recipe to refuse."""
    return method not in KEYS or "seed" in KEYS[method]


class Strict(BaseModel):
    """A part of a recipe: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Merging(Strict):
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
