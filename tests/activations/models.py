"""Small random models of several families, and what their maps read: taken by hooks of the plainest kind."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    Qwen3MoeConfig,
)

VOCABULARY = 64
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**_COMMON, tie_word_embeddings=True),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=1
    ),
    "gemma2": lambda: Gemma2Config(**_COMMON, head_dim=8),
    "qwen3_moe": lambda: Qwen3MoeConfig(
        **_COMMON, head_dim=8, moe_intermediate_size=24, num_experts=4, num_experts_per_tok=2
    ),
    "gpt_oss": lambda: GptOssConfig(
        **_COMMON, head_dim=8, num_local_experts=4, num_experts_per_tok=2, layer_types=["full_attention"] * 2
    ),
}  # fmt: skip


def live(family: str) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[family]()).eval().requires_grad_(False)
    with torch.no_grad():
        for _name, p in model.named_parameters():
            if p.dim() == 1:  # gains of 1 and biases of 0 would hide mistakes
                p.add_(0.3 * torch.randn(p.shape))
    return model


def sequences(lengths: tuple[int, ...] = (5, 9, 9, 12, 20, 9)) -> list[list[int]]:
    rng = torch.Generator().manual_seed(1)
    return [torch.randint(3, VOCABULARY, (n,), generator=rng).tolist() for n in lengths]


def inputs_of(model: Any, module: str, rows: list[list[int]]) -> torch.Tensor:
    """What a module got in forward passes of single rows: fp64, shape (vectors, n)."""
    found = []
    hook = model.get_submodule(module).register_forward_pre_hook(
        lambda _, args, kwargs: found.append((args[0] if args else kwargs["hidden_states"]).detach()), with_kwargs=True
    )
    with torch.no_grad():
        for row in rows:
            model(input_ids=torch.tensor([row]))
    hook.remove()
    return torch.cat([x.reshape(-1, x.shape[-1]) for x in found]).double()
