"""What an adapter is for, and how it holds each weight, is known from headers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mergetool.architecture.skeleton import skeleton_of
from mergetool.checkpoint.layout import read_layout
from mergetool.errors import RecipeError
from mergetool.merge.adapter_plan import Form, _form, base_of
from mergetool.merge.recipe import MergeRecipe


def recipe(*models: str, base: str | None = None) -> MergeRecipe:
    return MergeRecipe.model_validate({"merge_method": "linear", "models": [{"model": m} for m in models], "base_model": base})


def test_an_adapter_is_for_the_base_or_for_what_all_models_are_adapters_of() -> None:
    assert base_of(recipe("m+a", "m+b")) == "m"
    assert base_of(recipe("m+a", "n", base="k+c")) == "k"
    with pytest.raises(RecipeError, match="these are 2"):
        base_of(recipe("m+a", "n+b"))


@pytest.mark.parametrize(
    ("kind", "weight", "form"),
    [
        ("GPTNeoXForCausalLM", "gpt_neox.layers.0.mlp.dense_h_to_4h.weight", Form.LINEAR),
        ("GPTNeoXForCausalLM", "gpt_neox.layers.0.mlp.dense_h_to_4h.bias", Form.BIAS),
        ("GPTNeoXForCausalLM", "gpt_neox.layers.0.input_layernorm.bias", Form.WHOLE),
        ("GPTNeoXForCausalLM", "gpt_neox.embed_in.weight", Form.EMBEDDING),
        ("GPT2LMHeadModel", "transformer.h.0.attn.c_attn.weight", Form.TRANSPOSED),
        ("GPT2LMHeadModel", "transformer.wte.weight", Form.WHOLE),  # tied
        ("MixtralForCausalLM", "model.layers.0.mlp.experts.down_proj", None),
    ],
)
def test_a_weight_is_held_as_its_live_layer_is(saved: Callable[..., Path], kind: str, weight: str, form: Form | None) -> None:
    skeleton = skeleton_of(read_layout(saved(kind, "m")).config)
    assert skeleton is not None
    assert _form(skeleton, weight) is form
