"""Small checkpoints of several architectures, saved by transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SIZE = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
GPT2 = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40, "bos_token_id": 1, "eos_token_id": 1}
T5 = {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
SIZES = {
    "LlamaForCausalLM": SIZE | {"tie_word_embeddings": True},
    "Gemma2ForCausalLM": SIZE | {"head_dim": 8},
    "GPT2LMHeadModel": GPT2,
    "T5ForConditionalGeneration": T5,
    "MixtralForCausalLM": SIZE | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "OlmoeForCausalLM": SIZE | {"num_experts": 4, "num_experts_per_tok": 2},
    "GPTNeoXForCausalLM": SIZE | {"max_position_embeddings": 64},
    "LlamaForSequenceClassification": SIZE,
    "BertForMaskedLM": SIZE | {"max_position_embeddings": 40},
}


def save(kind: str, directory: Path, seed: int = 0, **settings: object) -> Path:
    """Writes a model of a class, with random weights, into a directory; returns the directory."""
    import transformers

    torch.manual_seed(seed)
    cls = getattr(transformers, kind)
    cls(cls.config_class(**{**SIZES[kind], **settings})).save_pretrained(directory)
    return directory


def rewrite(directory: Path, **tensors: torch.Tensor | None) -> Path:
    """Adds tensors to a checkpoint's file, dots written as two underscores; None takes one out."""
    file = directory / "model.safetensors"
    found = load_file(file)
    for key, value in tensors.items():
        name = key.replace("__", ".")
        if value is None:
            del found[name]
        else:
            found[name] = value.clone()
    save_file(found, file, metadata={"format": "pt"})
    return directory
