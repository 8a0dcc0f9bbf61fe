"""A configuration's features are known by name; scales, rows and parameters are PEFT's."""

from __future__ import annotations

from typing import Any

import pytest

from mergetool.checkpoint.adapter_config import AdapterConfig
from mergetool.errors import CheckpointError


def config(**values: object) -> AdapterConfig:
    return AdapterConfig({"peft_type": "LORA", "r": 8, "lora_alpha": 16, **values}, "a")


def test_every_key_that_peft_writes_is_known() -> None:
    """A new version's new key shows here, and with its default it refuses nobody."""
    from peft import LoraConfig

    values = LoraConfig(target_modules=["q_proj"]).to_dict()
    assert AdapterConfig({**values, "peft_type": "LORA"}, "a").scale("q_proj", 8) == 1.0


def test_the_scale_is_of_the_first_pattern_that_ends_a_layers_name() -> None:
    found = config(alpha_pattern={"q_proj": 4, r"layers\.0\.self_attn\.q_proj": 2})
    assert found.scale("model.layers.0.self_attn.q_proj", 8) == 0.5
    assert found.scale("model.layers.0.self_attn.v_proj", 8) == 2.0
    assert config(use_rslora=True).scale("x", 16) == 4.0
    assert AdapterConfig({"peft_type": "LORA"}, "a").scale("x", 8) == 1.0


@pytest.mark.parametrize("alpha", [None])
@pytest.mark.filterwarnings("ignore")
def test_a_scale_that_peft_cannot_make_is_refused_unless_a_pattern_says_it(alpha: Any) -> None:
    from peft import LoraConfig, get_peft_model
    from torch import nn

    def by_peft(**values: Any) -> float:
        layer: Any = get_peft_model(nn.Sequential(nn.Linear(4, 4)), LoraConfig(r=8, target_modules=["0"], **values))
        return layer.base_model.model[0].scaling["default"]

    with pytest.raises(TypeError):
        by_peft(lora_alpha=alpha)
    with pytest.raises(CheckpointError, match="PEFT does not load it"):
        config(lora_alpha=alpha).scale("0", 8)
    said = {"lora_alpha": alpha, "alpha_pattern": {"0": 4}}
    assert config(**said).scale("0", 8) == by_peft(**said) == 0.5
    with pytest.raises(CheckpointError, match="'1'"):
        config(**said).scale("1", 8)


def test_tokens_are_of_the_module_that_is_named() -> None:
    assert config(trainable_token_indices=[3, 1]).tokens("model.embed_tokens") == (3, 1)
    found = config(trainable_token_indices={"embed_tokens": [3], "lm_head": [4, 5]})
    assert found.tokens("model.embed_tokens") == (3,)
    assert found.tokens("lm_head") == (4, 5)
    assert found.tokens("model.other_embed_tokens") == ()


def test_parameters_keep_the_order_of_the_module() -> None:
    found = config(target_parameters=["experts.down_proj", "experts.gate_up_proj"])
    assert found.parameters("mlp.experts", ["gate_up_proj", "bias", "down_proj"]) == ["gate_up_proj", "down_proj"]
    assert found.parameters("mlp.xexperts", ["gate_up_proj"]) == []


@pytest.mark.parametrize("value", [3, "x", [0], {"a": 1}, True])
def test_an_unknown_key_with_a_value_is_refused_and_one_without_is_not(value: object) -> None:
    for nothing in (None, False, [], {}, ""):
        config(unheard_of=nothing)
    with pytest.raises(CheckpointError, match="with unheard_of"):
        config(unheard_of=value)


def test_a_number_in_quotes_is_not_taken_for_a_number() -> None:
    with pytest.raises(CheckpointError, match="its lora_alpha is '16', not a number"):
        config(lora_alpha="16")
