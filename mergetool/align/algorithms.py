"""The table of alignment algorithms: a row says which of TRL's trainers stands behind a name, what it reads, what it needs
and what it logs.

Everything that `align` does with an algorithm it reads from its row. Nothing here imports TRL or torch: a recipe is read
without them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from mergetool.align.best_of_n import best_of_n
from mergetool.align.rows import COMPLETIONS, LABELLED, PAIRS, PROMPTS, RowForm


@dataclass(frozen=True)
class Logged:
    """A number that a trainer logs, and where it is shown.

    Attributes:
        key: as TRL logs it.
        title: over its curve in training.png; None: it has none.
        word: before its value at each logged step on the terminal; None: it is not shown there.
        at_end: whether it is in the summary of a finished run.
    """

    key: str
    title: str | None = None
    word: str | None = None
    at_end: bool = False


PAIR_REWARDS = (
    Logged("rewards/accuracies", at_end=True),
    Logged("rewards/margins", title="reward margin", word="margin", at_end=True),
)
ANSWER_REWARD = (Logged("reward", title="reward of the sampled answers", word="reward"),)


@dataclass(frozen=True)
class Algorithm:
    """One row.

    Attributes:
        name: `algorithm:` in a recipe.
        about: one line, as docs/align.md has it: what the policy learns from.
        source: the paper.
        trainer, config: TRL's classes, as MODULE:CLASS.
        rows: the form of the rows that it trains on.
        beta: what the recipe's `beta` is: "always" given to TRL, given "if written", or None where it has no meaning.
        reference: "scored once" before training, so that no second model stays in memory; "beside the policy" while it is
            trained; None: there is none.
        sets: fields of TRL's config that make the algorithm what it is; a recipe may not set them.
        defaults: fields whose defaults here are not TRL's, beside those of every algorithm in training.py.
        rewarded: whether it needs the recipe's `reward`.
        samples: whether it trains on answers that it samples; then no prompt is cut, and checkpoints lie between samplings.
        on_policy: whether each sampling serves one optimizer step alone.
        model: transformers' class of the policy.
        adapt: of TRL's trainer class: the class that is trained with.
        logged: what its trainer logs beside the loss.
    """

    name: str
    about: str
    source: str
    trainer: str
    config: str
    rows: RowForm
    beta: Literal["always", "if written"] | None = "always"
    reference: Literal["scored once", "beside the policy"] | None = None
    sets: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    rewarded: bool = False
    samples: bool = False
    on_policy: bool = False
    model: str = "AutoModelForCausalLM"
    adapt: Callable[[type], type] | None = None
    logged: tuple[Logged, ...] = ()

    def config_class(self) -> type:
        """TRL's config."""
        return _imported(self.config)

    def trainer_class(self) -> type:
        """TRL's trainer, adapted."""
        found = _imported(self.trainer)
        return found if self.adapt is None else self.adapt(found)

    def config_defaults(self) -> dict[str, Any]:
        """The row's defaults, with what its `reference` means to TRL."""
        once = {"precompute_ref_log_probs": True} if self.reference == "scored once" else {}
        return {**once, **self.defaults}


def _imported(place: str) -> type:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        row.name: row
        for row in (
            Algorithm(
                "dpo",
                "pairs: a classification of the chosen against the rejected side",
                "Rafailov et al. 2023, arXiv 2305.18290",
                "trl:DPOTrainer",
                "trl:DPOConfig",
                PAIRS,
                reference="scored once",
                logged=PAIR_REWARDS,
            ),
            Algorithm(
                "ipo",
                "pairs: a margin of a fixed size between both sides",
                "Azar et al. 2023, arXiv 2310.12036",
                "trl:DPOTrainer",
                "trl:DPOConfig",
                PAIRS,
                reference="scored once",
                sets={"loss_type": ["ipo"]},
                logged=PAIR_REWARDS,
            ),
            Algorithm(
                "kto",
                "answers with a thumb up or down",
                "Ethayarajh et al. 2024, arXiv 2402.01306",
                "trl:KTOTrainer",
                "trl:KTOConfig",
                LABELLED,
                reference="scored once",
                logged=PAIR_REWARDS,
            ),
            Algorithm(
                "sft",
                "completions: the likelihood of what is written",
                "",
                "trl:SFTTrainer",
                "trl:SFTConfig",
                COMPLETIONS,
                beta=None,
            ),
            Algorithm(
                "grpo",
                "sampled answers, each against the mean of its group",
                "Shao et al. 2024, arXiv 2402.03300",
                "trl:GRPOTrainer",
                "trl:GRPOConfig",
                PROMPTS,
                beta="if written",
                reference="beside the policy",
                rewarded=True,
                samples=True,
                logged=ANSWER_REWARD,
            ),
            Algorithm(
                "raft",
                "sampled answers: the likelihood of the best of each group",
                "Dong et al. 2023, arXiv 2304.06767",
                "trl:GRPOTrainer",
                "trl:GRPOConfig",
                PROMPTS,
                beta=None,
                # one update on the answers of each sampling, so that the advantage alone weighs an answer's own gradient
                sets={"loss_type": "grpo", "num_iterations": 1},
                rewarded=True,
                samples=True,
                on_policy=True,
                adapt=best_of_n,
                logged=ANSWER_REWARD,
            ),
        )
    }
)


def takes_reward(name: str) -> bool:
    """Whether a recipe of that algorithm has a `reward`; an unknown name is for the recipe to refuse."""
    return name in ALGORITHMS and ALGORITHMS[name].rewarded
