"""What is trained: theta_s itself, or its trunk with a head of one score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mergetool.align.algorithm_row import Algorithm
from mergetool.architecture.skeleton import settings_of
from mergetool.checkpoint.layout import Layout
from mergetool.errors import CheckpointError

ONE_SCORE: Mapping[str, Any] = {"num_labels": 1}
"""What makes transformers' classifier a reward model."""


def load_settings(algorithm: Algorithm) -> dict[str, Any]:
    """Settings of transformers' class beside the checkpoint's own."""
    return dict(ONE_SCORE) if algorithm.scores else {}


def must_be_trainable(algorithm: Algorithm, layout: Layout) -> None:
    """Refuses an architecture that transformers has no class for.

    Raises:
        CheckpointError: it has no sequence classifier of that architecture, and a reward model is one.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    settings = settings_of(layout.config)
    if algorithm.scores and settings is not None and type(settings) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise CheckpointError(
            f"{layout.name}: transformers has no sequence classifier for '{layout.config.get('model_type')}', "
            "and a reward model is one",
            "train the reward model from another SFT model",
        )


def head_of(model: Any, algorithm: Algorithm) -> frozenset[str]:
    """The names of the weights that the SFT model has not: those outside of the trunk of a reward model."""
    from mergetool.optim.names import canonical

    if not algorithm.scores:
        return frozenset()
    names = [canonical(name) for name, _ in model.named_parameters()]
    return frozenset(name for name in names if not name.startswith(f"{model.base_model_prefix}."))
