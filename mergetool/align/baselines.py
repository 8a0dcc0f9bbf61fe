"""The table of baselines that the papers compare with, under the same word in align and compare.

Baselines merge nothing. `kl` is AdamW with the loss's own pull toward the reference, so its option is `beta` at the top of the
recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from mergetool.activations.answers import nll
from mergetool.align.averages import Average, Bema, ElasticReset, Ema, Every, Sma
from mergetool.align.penalties import ewc_penalty, l1_penalty, l2_penalty
from mergetool.align.row_terms import Term, kl

if TYPE_CHECKING:
    import torch

    from mergetool.optim.reference import Storage


class Settings(Protocol):
    """The part of a recipe's `merging` that baselines read; None where the recipe leaves it out."""

    @property
    def coefficient(self) -> float | None: ...
    @property
    def every(self) -> Every | None: ...
    @property
    def since(self) -> float | None: ...
    @property
    def lag(self) -> float | None: ...
    @property
    def multiplier(self) -> float | None: ...
    @property
    def ema_power(self) -> float | None: ...
    @property
    def bias_power(self) -> float | None: ...
    @property
    def strength(self) -> float | None: ...
    @property
    def storage(self) -> Storage | None: ...
    @property
    def rank(self) -> int | None: ...
    @property
    def lora_alpha(self) -> float | None: ...
    @property
    def lambda_(self) -> float | None: ...


@dataclass(frozen=True)
class Baseline:
    """One row: plain AdamW, and what is done beside it. Baselines draw nothing; the seed that a study gives to every
    candidate is theirs too.

    Attributes:
        name: `merging.method` in a recipe.
        about: one line, as docs/align.md has it.
        source: the paper.
        keys: what `merging` may set.
        attach: of (optimizer, settings, directory of theta_s, file of its Fisher): what changes the optimizer's steps.
        average: the average that is kept beside the training: written in place of the weights, or what they are reset to.
        required: keys without a default.
        adapter: of settings and PEFT's word for the task: PEFT's configuration, where an adapter is trained in place of the
            weights.
        term: what is added to the loss for the rows that should stay.
        reference: whether `term` reads theta_s, which then stays in memory beside the policy.
        fisher: whether the Fisher information of theta_s on these rows is computed before the run.
        gradients: whether steps are kept orthogonal to the gradients of these rows.
    """

    name: str
    about: str
    source: str = ""
    keys: frozenset[str] = frozenset({"seed"})
    attach: Callable[[torch.optim.Optimizer, Settings, Path, Path | None], None] | None = None
    average: type[Average] | None = None
    required: frozenset[str] = frozenset()
    adapter: Callable[[Settings, str], Any] | None = None
    term: Term | None = None
    reference: bool = False
    fisher: bool = False
    gradients: bool = False

    def averaged(self, settings: Settings) -> Average | None:
        """The average with the recipe's settings; what the recipe leaves out keeps the average's own."""
        if self.average is None:
            return None
        given = {name: value for name in self.keys - {"seed"} if (value := getattr(settings, name)) is not None}
        return self.average(**given)

    @property
    def needs_rows(self) -> bool:
        """Whether `merging.rows` must be given."""
        return "rows" in self.keys


def adapter(rank: int, scale: float | None, task: str) -> Any:
    """PEFT's configuration of LoRA on every linear layer.

    Args:
        rank: r.
        scale: lora_alpha; 2 r where None.
        task: PEFT's word for what is trained; the head of a classifier is trained whole.
    """
    from peft import LoraConfig

    scales: dict[str, Any] = {"lora_alpha": 2 * rank if scale is None else scale}  # a fraction serves too
    return LoraConfig(r=rank, lora_dropout=0.0, target_modules="all-linear", task_type=task, **scales)


def _strength(settings: Settings) -> float:
    return 1e-3 if settings.strength is None else settings.strength


def _storage(settings: Settings) -> Storage:
    return settings.storage or "mmap"


def weight_of_rows(settings: Settings) -> float:
    """lambda, 1 where the recipe leaves it out."""
    return 1.0 if settings.lambda_ is None else settings.lambda_


def _ewc(optimizer: torch.optim.Optimizer, settings: Settings, sft: Path, fisher: Path | None) -> None:
    assert fisher is not None  # the run has made it
    ewc_penalty(optimizer, sft, weight_of_rows(settings), fisher, _storage(settings))


_OF_ROWS = frozenset({"rows", "lambda", "batch_size", "seed"})

BASELINES: Mapping[str, Baseline] = MappingProxyType(
    {
        row.name: row
        for row in (
            Baseline("adamw", "plain training", "Loshchilov & Hutter 2019, arXiv 1711.05101", frozenset()),
            Baseline(
                "ema",
                "the moving average of AdamW's weights",
                "Lu et al. 2024, arXiv 2405.17931, baseline EMA",
                frozenset({"coefficient", "seed"}),
                average=Ema,
            ),
            Baseline(
                "sma",
                "the mean of AdamW's weights",
                "Izmailov et al. 2018, arXiv 1803.05407; Lin et al. 2023, arXiv 2309.06256, stochastic moving averaging",
                frozenset({"since", "every", "seed"}),
                average=Sma,
            ),
            Baseline(
                "bema",
                "the moving average of AdamW's weights, corrected for what it lags behind",
                "Block & Zhang 2025, arXiv 2508.00180",
                frozenset({"since", "every", "lag", "multiplier", "ema_power", "bias_power", "seed"}),
                average=Bema,
            ),
            Baseline(
                "elastic_reset",
                "AdamW whose weights are reset to their moving average at every K-th step, and that to the SFT model",
                "Noukhovitch et al. 2023, arXiv 2312.07551",
                frozenset({"coefficient", "every", "seed"}),
                average=ElasticReset,
                required=frozenset({"every"}),
            ),
            Baseline(
                "l2",
                "AdamW with the penalty strength/2 · ‖θ − θ_s‖²",
                "Lin et al. 2023, arXiv 2309.06256, L2 penalty",
                frozenset({"strength", "storage", "seed"}),
                attach=lambda optimizer, settings, sft, _: l2_penalty(optimizer, sft, _strength(settings), _storage(settings)),
            ),
            Baseline(
                "l1",
                "AdamW with the penalty strength · ‖θ − θ_s‖₁",
                "Lin et al. 2023, arXiv 2309.06256, L1 penalty",
                frozenset({"strength", "storage", "seed"}),
                attach=lambda optimizer, settings, sft, _: l1_penalty(optimizer, sft, _strength(settings), _storage(settings)),
            ),
            Baseline("kl", "AdamW; its option is `beta` at the top"),
            Baseline(
                "lora",
                "low-rank adapters, merged into a whole checkpoint at the end",
                "Hu et al. 2021, arXiv 2106.09685",
                frozenset({"rank", "lora_alpha", "seed"}),
                adapter=lambda settings, task: adapter(settings.rank or 16, settings.lora_alpha, task),
            ),
            Baseline(
                "replay",
                "AdamW with λ · the negative log-likelihood of rows that should stay",
                "Lin et al. 2023, arXiv 2309.06256, experience replay; Ouyang et al. 2022, arXiv 2203.02155, PPO-ptx",
                _OF_ROWS,
                term=nll,
            ),
            Baseline(
                "lwf",
                "AdamW with λ · KL(π_s ‖ π) on rows that should stay",
                "Li & Hoiem 2016, arXiv 1606.09282; Lin et al. 2023, arXiv 2309.06256, knowledge distillation",
                _OF_ROWS,
                term=kl,
                reference=True,
            ),
            Baseline(
                "ewc",
                "AdamW with the penalty λ/2 · Σ F_i (θ − θ_s)_i², F the diagonal Fisher information on rows that should stay",
                "Kirkpatrick et al. 2017, arXiv 1612.00796",
                frozenset({"rows", "lambda", "storage", "seed"}),
                attach=_ewc,
                fisher=True,
            ),
            Baseline(
                "ogpsa",
                "AdamW without the part of each gradient, or update, in the span of the gradients of sets of rows",
                "arXiv 2602.07892, OGPSA",
                frozenset({"rows", "every", "project", "batch_size", "seed"}),
                gradients=True,
            ),
        )
    }
)
