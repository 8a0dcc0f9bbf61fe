"""The table of baselines that the papers compare with, under the same word in align and compare.

Baselines merge nothing. `kl` is AdamW with the loss's own pull toward the reference, so its knob is `beta` at the top of the
recipe.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from mergetool.activations.answers import nll
from mergetool.align.penalties import ewc_penalty, l1_penalty, l2_penalty
from mergetool.align.row_terms import Term, kl

if TYPE_CHECKING:
    import torch

    from mergetool.optim.reference import Storage

_AVERAGE = "ema.safetensors"


class Settings(Protocol):
    """The part of a recipe's `merging` that baselines read; None where the recipe leaves it out."""

    @property
    def coefficient(self) -> float | None: ...
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
        knobs: what `merging` may set.
        attach: of (optimizer, settings, directory of theta_s, file of its Fisher): what changes the optimizer's steps.
        average: of settings: the trainer's callback whose average is published in place of the weights that are trained.
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
    knobs: frozenset[str] = frozenset({"seed"})
    attach: Callable[[torch.optim.Optimizer, Settings, Path, Path | None], None] | None = None
    average: Callable[[Settings], Any] | None = None
    adapter: Callable[[Settings, str], Any] | None = None
    term: Term | None = None
    reference: bool = False
    fisher: bool = False
    gradients: bool = False

    @property
    def needs_rows(self) -> bool:
        """Whether `merging.rows` must be given."""
        return "rows" in self.knobs


@functools.cache
def _average_class() -> type:
    from transformers import TrainerCallback

    class Average(TrainerCallback):
        """Keeps ema <- (1 - c) * ema + c * theta, in fp32; it travels with the checkpoints.

        Source: [OMO] Lu et al. 2024, arXiv 2405.17931, baseline EMA.
        """

        def __init__(self, coefficient: float) -> None:
            self.coefficient = coefficient
            self.average: dict[str, torch.Tensor] = {}

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            """From the checkpoint's file in a resumed run, else from theta_s."""
            if state.global_step:
                self.load(Path(args.output_dir) / f"checkpoint-{state.global_step}")
            else:
                self.average = {name: p.detach().float().clone() for name, p in _trained(model)}

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            """One step of the average."""
            for name, p in _trained(model):
                mean = self.average[name]
                self.average[name] = mean.to(p.device).lerp_(p.detach().float(), self.coefficient)

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Beside the trainer's own files."""
            from safetensors.torch import save_file

            if state.is_world_process_zero:
                save_file(self.average, Path(args.output_dir) / f"checkpoint-{state.global_step}" / _AVERAGE)

        def load(self, checkpoint: Path) -> None:
            """Takes the average that a checkpoint has kept."""
            from safetensors.torch import load_file

            self.average = load_file(checkpoint / _AVERAGE)

        @contextmanager
        def in_place(self, model: Any) -> Iterator[None]:
            """Within it, the average is the model's weights."""
            import torch

            kept = {name: p.detach().clone() for name, p in _trained(model)}
            self.put(model)
            try:
                yield
            finally:
                with torch.no_grad():
                    for name, p in _trained(model):
                        p.copy_(kept[name])

        def put(self, model: Any) -> None:
            """Makes the average the model's weights."""
            import torch

            with torch.no_grad():
                for name, p in _trained(model):
                    p.copy_(self.average[name])

    return Average


def average(coefficient: float) -> Any:
    """A trainer callback that keeps the exponential moving average of the weights; `put` makes it the model."""
    return _average_class()(coefficient)


def _trained(model: Any) -> list[tuple[str, Any]]:
    from mergetool.optim.names import canonical

    return [(canonical(name), p) for name, p in model.named_parameters() if p.requires_grad]


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
                average=lambda settings: average(settings.coefficient or 1e-3),
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
            Baseline("kl", "AdamW; its knob is `beta` at the top"),
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
