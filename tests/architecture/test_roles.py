"""Embeddings, final norm and head are what the class of the model makes of them."""

from __future__ import annotations

import pytest

from mergetool.architecture.roles import depth_of, roles_of
from mergetool.checkpoint.layout import read_layout
from mergetool.errors import CheckpointError
from tests.architecture.small import rewrite


@pytest.mark.parametrize(
    ("kind", "name", "role"),
    [
        ("LlamaForCausalLM", "model.embed_tokens.weight", "embeddings"),
        ("GPT2LMHeadModel", "transformer.wte.weight", "embeddings"),
        ("GPT2LMHeadModel", "transformer.wpe.weight", "embeddings"),
        ("LlamaForCausalLM", "lm_head.weight", "lm_head"),
        ("GPTNeoXForCausalLM", "embed_out.weight", "lm_head"),
        ("LlamaForCausalLM", "model.norm.weight", "final_norm"),
        ("GPT2LMHeadModel", "transformer.ln_f.bias", "final_norm"),
        ("BertForMaskedLM", "bert.embeddings.LayerNorm.weight", "embeddings"),
        ("BertForMaskedLM", "cls.predictions.transform.dense.weight", "lm_head"),
    ],
)
def test_the_role_of_a_tensor(saved, kind: str, name: str, role: str) -> None:
    settings = {"tie_word_embeddings": False} if name == "lm_head.weight" else {}
    assert roles_of(read_layout(saved(kind, "m", **settings)))[name] == role


def test_an_encoder_and_a_decoder_are_two_stacks(saved) -> None:
    assert depth_of(read_layout(saved("T5ForConditionalGeneration", "m"))).depth == {"decoder.block": 2, "encoder.block": 2}


def test_a_layer_behind_the_configured_depth_does_not_deepen_the_stack(saved) -> None:
    import torch

    directory = rewrite(saved("LlamaForCausalLM", "m"), model__layers__2__eh_proj__weight=torch.ones(2, 2))
    assert depth_of(read_layout(directory)).depth == {"model.layers": 2}


def test_the_roles_of_an_unknown_architecture_are_not_guessed(saved) -> None:
    layout = read_layout(saved("LlamaForCausalLM", "m"))
    layout.config["model_type"] = "ourown"
    with pytest.raises(CheckpointError, match="model_type 'ourown'"):
        roles_of(layout)
