"""Two models of one shape whose configurations use the weights differently are told apart by the key that does it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mergetool.architecture.differences import config_differences, said

LLAMA = {
    "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
}  # fmt: skip
QWEN = {**LLAMA, "model_type": "qwen2", "sliding_window": 4, "use_sliding_window": True, "max_window_layers": 0}
GEMMA = {**LLAMA, "model_type": "gemma2", "head_dim": 8, "hidden_activation": "gelu_pytorch_tanh"}
BERT = {**LLAMA, "model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12}

COMPUTES = [
    (LLAMA, "rope_theta", 500000.0),
    (LLAMA, "rope_scaling", {"rope_type": "linear", "factor": 2.0}),
    (LLAMA, "num_attention_heads", 8),
    (LLAMA, "hidden_act", "gelu"),
    (LLAMA, "rms_norm_eps", 1e-2),
    (QWEN, "sliding_window", 2),
    (QWEN, "use_sliding_window", False),
    (GEMMA, "attn_logit_softcapping", 5.0),
    (GEMMA, "final_logit_softcapping", 2.0),
    (GEMMA, "query_pre_attn_scalar", 16),
    (BERT, "layer_norm_eps", 1e-1),
    (BERT, "num_attention_heads", 8),
]


def logits(config: dict[str, Any]) -> torch.Tensor:
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    kind = AutoConfig.for_model(**{**config, "num_key_value_heads": config["num_attention_heads"]})
    model = AutoModel.from_config(kind, attn_implementation="eager").eval()
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.4
    with torch.no_grad():
        return model(torch.arange(3, 12)[None]).last_hidden_state


@pytest.mark.parametrize(("config", "key", "value"), COMPUTES, ids=lambda v: v if isinstance(v, str) else "")
def test_a_key_that_changes_what_is_computed_is_named(config: dict, key: str, value: Any) -> None:
    other = {**config, key: value}
    if key != "final_logit_softcapping":  # the head's, which a model without a head has not
        assert not torch.allclose(logits(config), logits(other), atol=1e-4)
    for pair in ((config, other), (other, config)):
        found = config_differences(*pair)
        assert any(key in d.key or d.key.startswith("rope") or d.key == "layer_types" for d in found), found
        assert said(found)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope_theta", 10000), ("use_cache", False), ("dtype", "bfloat16"), ("transformers_version", "4.30.0"),
        ("attention_dropout", 0.1), ("initializer_range", 0.1), ("max_position_embeddings", 4096), ("vocab_size", 65),
        ("eos_token_id", 7), ("_name_or_path", "x"), ("unsloth_version", "2025"), ("architectures", ["LlamaForCausalLM"]),
        ("rope_scaling", None), ("head_dim", 8), ("tie_word_embeddings", True), ("pretraining_tp", 2),
    ],
)  # fmt: skip
def test_what_training_and_other_programs_read_is_no_difference(key: str, value: Any) -> None:
    assert config_differences(LLAMA, {**LLAMA, key: value}) == []


def test_a_default_that_is_written_down_is_the_default() -> None:
    bare = {key: value for key, value in LLAMA.items() if key not in ("hidden_act", "rope_theta")}
    assert config_differences(LLAMA, bare) == []


def test_the_parts_of_a_vision_language_model_are_compared() -> None:
    one = {
        "model_type": "llava",
        "text_config": LLAMA,
        "vision_config": {"model_type": "clip_vision_model", "hidden_act": "gelu"},
    }
    text = {**one, "text_config": {**LLAMA, "rope_theta": 5.0}}
    seen = {**one, "vision_config": {"model_type": "clip_vision_model", "hidden_act": "relu"}}
    assert [d.key.split(".")[0] for d in config_differences(one, text)] == ["text_config"]
    assert [d.key for d in config_differences(one, seen)] == ["vision_config.hidden_act"]


def test_a_configuration_that_transformers_does_not_know_is_compared_as_it_is() -> None:
    one = {"model_type": "of_tomorrow", "rope_theta": 1.0}
    assert [d.key for d in config_differences(one, {**one, "rope_theta": 2.0})] == ["rope_theta"]
