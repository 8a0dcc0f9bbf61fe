"""What a row of the table of algorithms says, and how TRL's classes are found by it.

Nothing here imports TRL or torch: a recipe is read without them.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mergetool.align.rows import RowForm
from mergetool.errors import RecipeError


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


@dataclass(frozen=True)
class Sampling:
    """How a trainer samples the answers that it learns from.

    Attributes:
        length: the field of TRL's config that limits an answer, in tokens.
        in_wholes: whether a sampling is always of as many prompts as it can hold, so that the last rows are left out where
            they are fewer.
        special_tokens: whether a prompt of text gets the special tokens that the tokenizer adds.
    """

    length: str = "max_completion_length"
    in_wholes: bool = True
    special_tokens: bool = True


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
        zero_beta: whether 0 is a `beta`.
        reference: "scored once" before training, so that no second model stays in memory; "beside the policy" while it is
            trained; None: there is none.
        sets: fields of TRL's config that make the algorithm what it is; a recipe may not set them.
        defaults: fields whose defaults here are not TRL's, beside those of every algorithm in training.py.
        rewarded: whether it needs the recipe's `reward`.
        taught: whether the SFT model is the teacher of a policy that starts elsewhere, at the recipe's `policy`.
        sampling: of an algorithm that trains on answers that it samples: then no prompt is cut, and checkpoints lie between
            samplings; None: it samples none.
        on_policy: whether each sampling serves one optimizer step alone.
        scores: whether what is trained is a reward model: a classifier of one label whose head the SFT model has not.
        evaluates: whether its trainer can be evaluated on rows.
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
    zero_beta: bool = False
    reference: Literal["scored once", "beside the policy"] | None = None
    sets: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    rewarded: bool = False
    taught: bool = False
    sampling: Sampling | None = None
    on_policy: bool = False
    scores: bool = False
    evaluates: bool = True
    adapt: Callable[[type], type] | None = None
    logged: tuple[Logged, ...] = ()

    @property
    def samples(self) -> bool:
        """Whether it trains on answers that it samples."""
        return self.sampling is not None

    @property
    def model(self) -> str:
        """transformers' class of what is trained."""
        return "AutoModelForSequenceClassification" if self.scores else "AutoModelForCausalLM"

    @property
    def task(self) -> str:
        """PEFT's word for what is trained."""
        return "SEQ_CLS" if self.scores else "CAUSAL_LM"

    def config_class(self) -> type:
        """TRL's config.

        Raises:
            RecipeError: the TRL that is installed has none.
        """
        return self._imported(self.config)

    def trainer_class(self) -> type:
        """TRL's trainer, adapted.

        Raises:
            RecipeError: the TRL that is installed has none.
        """
        found = self._imported(self.trainer)
        return found if self.adapt is None else self.adapt(found)

    def config_defaults(self) -> dict[str, Any]:
        """The row's defaults, with what its `reference` means to TRL."""
        once = {"precompute_ref_log_probs": True} if self.reference == "scored once" else {}
        return {**once, **self.defaults}

    def _imported(self, place: str) -> type:
        module, _, name = place.partition(":")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*trl.experimental")  # said in docs/align.md
                return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise RecipeError(
                f"algorithm: {self.name} is {module}.{name}, which the installed TRL does not have ({error})",
                "install trl 1.16.0, or take another algorithm",
            ) from None
