"""A reward model has the weights of its head; one without would score with random numbers."""

from __future__ import annotations

import pytest
import torch

from mergetool.checkpoint.classifier import must_classify
from mergetool.checkpoint.layout import read_layout
from mergetool.errors import CheckpointError
from tests.architecture.small import rewrite, save


def test_a_classifier_with_its_head_passes_and_without_it_is_refused(tmp_path) -> None:
    directory = save("LlamaForSequenceClassification", tmp_path / "m", num_labels=1)
    must_classify(read_layout(directory), "reward_model", "give another", labels=1)
    with pytest.raises(CheckpointError, match="gives 1 scores to a text, not 2"):
        must_classify(read_layout(directory), "reward_model", "give another", labels=2)
    rewrite(directory, score__weight=None)
    with pytest.raises(CheckpointError, match=r"has no weights for 'score\.weight'"):
        must_classify(read_layout(directory), "reward_model", "give another")
    rewrite(directory, lm_head__weight=torch.ones(96, 32))
    with pytest.raises(CheckpointError, match=r"has no weights for 'score\.weight'"):
        must_classify(read_layout(directory), "reward_model", "give another")
