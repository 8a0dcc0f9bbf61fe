"""TRL's trainer asked before anything is trained: its constructor, on the first rows, with a model that has no weights."""

from __future__ import annotations

import copy
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from mergetool.align.algorithm_row import Algorithm
from mergetool.align.beside import TEMPLATE
from mergetool.align.policy import load_settings
from mergetool.align.recipe import AlignRecipe
from mergetool.align.refusals import refusals
from mergetool.align.rows import is_conversation
from mergetool.errors import DataError, MergetoolError


def rehearse(recipe: AlignRecipe, config: Any, sft: Path, rows: Any) -> None:
    """Constructs the recipe's trainer as `align` would, without weights, rewards and reference.

    Args:
        recipe: of the run.
        config: TRL's, made of it; not changed.
        sft: the directory of theta_s, for its configuration and tokenizer.
        rows: the first of the training rows, as a data set.

    Raises:
        RecipeError: what TRL's constructor refuses.
        DataError: the rows are conversations and there is no chat template.
    """
    import torch
    import transformers

    if config.world_size > 1 or getattr(config, "use_vllm", False):
        return  # its constructor would meet other processes
    tokenizer = transformers.AutoTokenizer.from_pretrained(sft, trust_remote_code=False)
    if is_conversation(rows[0]) and not tokenizer.chat_template and not recipe.training.get(TEMPLATE):
        raise DataError(
            "data.train: the rows are conversations, and the tokenizer has no chat template",
            f"add chat_template.jinja to {sft}, or give the rows as text",
        )
    settings = transformers.AutoConfig.from_pretrained(sft, trust_remote_code=False, **load_settings(recipe.algorithm_row))
    algorithm, baseline = recipe.algorithm_row, recipe.merging.baseline
    config = copy.copy(config)
    if hasattr(config, "precompute_ref_log_probs"):
        config.precompute_ref_log_probs = True
    if hasattr(config, "sync_ref_model"):
        config.sync_ref_model = False
    if algorithm.reference == "beside the policy":
        config.beta = 0.0
    more: dict[str, Any] = {"reward_funcs": _no_reward} if algorithm.rewarded else {}
    if baseline is not None and baseline.adapter is not None:
        more["peft_config"] = baseline.adapter(recipe.merging, algorithm.task)
    with tempfile.TemporaryDirectory() as place:
        config.output_dir = place
        with torch.device("meta"):
            model = getattr(transformers, algorithm.model).from_config(settings)
        # TRL tags the model when it has looked at everything; what follows, a hash and the reference, would read weights
        model.add_model_tags = _enough
        with suppress(_Enough), refusals(config, recipe.training):
            _without_weights(algorithm)(
                model=model, args=config, train_dataset=rows, eval_dataset=None, processing_class=tokenizer, **more
            )


class _Enough(MergetoolError):
    """The constructor has come to its end."""


def _enough(tags: Any) -> None:
    raise _Enough("enough")


def _no_reward(completions: list[Any], **columns: Any) -> list[float]:
    return [0.0] * len(completions)


def _without_weights(algorithm: Algorithm) -> type:
    """TRL's trainer that does not move its model."""
    base: Any = algorithm.trainer_class()

    class Rehearsal(base):
        def _move_model_to_device(self, model: Any, device: Any) -> None:
            """A model without weights is nowhere."""

    Rehearsal.__name__ = base.__name__
    return Rehearsal
