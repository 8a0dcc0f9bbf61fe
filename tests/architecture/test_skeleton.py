"""A model without weights: what it has, and that a configuration that cannot be made is no error."""

from __future__ import annotations

import torch

from mergetool.architecture.skeleton import skeleton_of
from tests.architecture.small import GPT2, SIZE, T5


def test_a_skeleton_has_the_names_and_shapes_of_the_model_and_no_memory() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    made = skeleton_of({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **GPT2})
    assert made is not None
    model = GPT2LMHeadModel(GPT2Config(**GPT2))
    assert made.shapes == {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert all(parameter.device == torch.device("meta") for parameter in made.model.parameters())


def test_every_name_of_a_tied_weight_is_in_its_group() -> None:
    made = skeleton_of({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], **T5})
    assert made is not None
    group = {"shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    for name in group:
        assert set(made.group(name)) == group
        assert made.group(name)[0] == "shared.weight"


def test_what_transformers_does_not_know_or_cannot_make_is_none() -> None:
    assert skeleton_of({}) is None
    assert skeleton_of({"model_type": "ourown"}) is None
    assert skeleton_of({"model_type": "llama", "architectures": ["OurOwnModel"], **SIZE}) is None
    assert skeleton_of({"model_type": "llama", **SIZE, "hidden_size": "wide"}) is None
