"""transformers' own classes, built small: which there are, their configurations shrunk, and a merge of two of them."""

from __future__ import annotations

import contextlib
import copy
import functools
import re
from pathlib import Path
from typing import Any

import torch

MAPPINGS = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "masked": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "image-text": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
}
VOCABULARY, WIDTH, HEADS, LAYERS, LARGEST = 160, 32, 4, 2, 4_000_000


def classes() -> dict[str, str]:
    """Class -> the mapping that it is first in."""
    from transformers.models.auto import modeling_auto

    found: dict[str, str] = {}
    for kind, mapping in MAPPINGS.items():
        for names in getattr(modeling_auto, mapping).values():
            for name in names if isinstance(names, (tuple, list)) else (names,):
                found.setdefault(name, kind)
    return found


# What a setting with such a name becomes; the first that matches. None: it stays.
_SIZES: list[tuple[str, Any]] = [
    (r"token_id$|token_index$|_id$|_ids$|token$", None),
    (r"^(num_attention_heads|num_heads|n_heads?|num_query_heads|heads|num_v_heads)$|attention_heads$|^linear_num", HEADS),
    (r"key_value_heads|kv_heads|num_global_kv|n_kv|num_key_heads|multi_query_group_num", 2),
    (r"hidden_size$|hidden_dim$|^(d_model|n_embd|dim|embed_dim|embedding_size|width)$|coder_embed_dim$", WIDTH),
    (r"^(model_dim|emb_dim|d_embed|word_embed_proj_dim|out_dim|output_dim|input_dim|projection_dim|encoder_hidden)$", WIDTH),
    (r"head_dim|^d_kv$|head_size|key_length|d_head|v_head|qk_nope|dim_head|kv_channels|attention_head_size", WIDTH // HEADS),
    (r"qk_rope|rope_head", WIDTH // HEADS),
    (r"lora_rank|rank$", 8),
    (r"intermediate|ffn|ff_dim|d_ff|n_inner|mlp_dim|feed_forward_size|d_inner", 48),
    (r"vocab_size|^vocab|n_vocab|padded_vocab", VOCABULARY),
    (r"^(num_local_experts|num_experts|n_routed_experts|moe_num_experts|num_moe_experts)$", 4),
    (r"experts_per_tok|top_?k$|moe_k|num_selected", 2),
    (r"n_group|topk_group|n_shared", 1),
    (r"nextn|mtp", None),
    (r"dense_replace|first_k|start_layer|layer_start", 1),
    (r"layers$|n_layer|depth$|num_blocks|layers_count", LAYERS),
    (r"image_size|img_size|input_size$", 32),
    (r"max_position|n_positions|seq_length|max_seq|context_length|max_source|max_target|n_ctx|max_length", 128),
    (r"state_size|ssm_state|d_state", 8),
    (r"window|chunk_size", 16),
]  # fmt: skip


# What the names do not tell: class -> settings, with the path to the part that has them.
_SETTINGS: dict[str, dict[str, Any]] = {
    "BambaForCausalLM": {"mamba_n_heads": 8}, "GraniteMoeHybridForCausalLM": {"mamba_n_heads": 8},
    "BltForCausalLM": {"encoder_hash_byte_group_vocab": 50},
    "HunYuanDenseV1ForCausalLM": {"head_dim": 8}, "HunYuanMoEV1ForCausalLM": {"head_dim": 8},
    "MinistralForCausalLM": {"head_dim": 8}, "DeepseekV3ForCausalLM": {"num_key_value_heads": 4},
    "HunYuanVLForConditionalGeneration": {"text_config.head_dim": 8},
    "JambaForCausalLM": {"attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_offset": 1, "expert_layer_period": 2},
    "Lfm2MoeForCausalLM": {"layer_types": ["conv", "full_attention"]},
    "Mamba2ForCausalLM": {"num_heads": 8, "head_dim": 8},
    "NemotronForCausalLM": {"num_key_value_heads": 2},
    "OlmoHybridForCausalLM": {"layer_types": ["linear_attention", "full_attention"]},
    "RecurrentGemmaForCausalLM": {"lru_width": 32},
    "ReformerModelWithLMHead": {"is_decoder": True, "axial_pos_embds": False},
    "ReformerForMaskedLM": {"axial_pos_embds": False},
    "EsmForMaskedLM": {"vocab_size": VOCABULARY, "pad_token_id": 1}, "EsmcForMaskedLM": {"num_key_value_heads": 4},
    "PerceiverForMaskedLM": {"d_latents": 32, "d_model": 32, "num_latents": 16, "qk_channels": 32, "v_channels": 32},
    "Gemma4ForCausalLM": {"per_layer_config": {}}, "Gemma4UnifiedForCausalLM": {"per_layer_config": {}},
    "Gemma4ForConditionalGeneration": {"text_config.per_layer_config": {}},
    "Gemma4UnifiedForConditionalGeneration": {"text_config.per_layer_config": {}},
    "Gemma3nForCausalLM": {"num_kv_shared_layers": 0},
    "Dots1ForCausalLM": {"n_routed_experts": 4, "n_shared_experts": 1, "moe_intermediate_size": 32},
    "Llama4ForConditionalGeneration": {"vision_config.vision_output_dim": 32, "vision_config.projector_output_dim": 32,
                                       "vision_config.projector_input_dim": 32},

}  # fmt: skip


def shrunk(config: Any, name: str = "") -> Any:
    """A configuration of the same class whose model is small, by the names of its settings."""
    small = copy.deepcopy(config)
    _shrink(small)
    for path, value in _SETTINGS.get(name, {}).items():
        *parts, key = path.split(".")
        setattr(functools.reduce(getattr, parts, small), key, value)
    return small


def _shrink(config: Any) -> None:
    from transformers import PreTrainedConfig

    layers = {v for k, v in vars(config).items() if isinstance(v, int) and re.search(r"layers|n_layer|depth", k)}
    for key, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            _shrink(value)
        elif isinstance(value, bool) or value is None:
            continue
        elif isinstance(value, int):
            size = next((size for pattern, size in _SIZES if re.search(pattern, key)), None)
            if re.search(r"token_id$|token_index$", key):
                _set(config, key, value % (VOCABULARY - 8) if value > 2 else value)
            elif size is not None and value > size:
                _set(config, key, size)
        elif isinstance(value, list) and len(value) in layers and len(value) > LAYERS:
            _set(config, key, value[:LAYERS])


def _set(config: Any, key: str, value: Any) -> None:
    with contextlib.suppress(AttributeError, NotImplementedError, TypeError, ValueError):  # one that follows from others
        setattr(config, key, value)


@functools.cache
def small_model(name: str) -> tuple[Any, str]:
    """(the class built small with random weights, "") or (None, why it cannot be)."""
    import transformers

    cls = getattr(transformers, name)
    try:
        config = shrunk(cls.config_class(), name)
        config = type(config).from_dict(config.to_dict())
        with torch.device("meta"):
            numel = sum(p.numel() for p in cls(copy.deepcopy(config)).parameters())
        if numel > LARGEST:
            return None, f"{numel / 1e6:.0f} million parameters when shrunk by the names of its settings"
        return cls(config), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100] if str(error).strip() else ''}"


def merged(model: Any, folder: Path) -> tuple[Any, dict[str, Any], dict[str, torch.Tensor]]:
    """Two models of one class with random weights, merged half and half by this program and loaded by transformers.

    Args:
        model: of the class; its weights are overwritten.
        folder: for the two checkpoints and the result.

    Returns:
        The loaded model, what transformers says of loading it, and the mean of the two models' weights.
    """
    from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge

    states = []
    for seed in (1, 2):
        rng = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():  # what is not trained is computed, and not saved by all
                if parameter.requires_grad:
                    parameter.copy_(torch.rand(parameter.shape, generator=rng) * 0.2 - 0.1)
        model.save_pretrained(folder / f"m{seed}")
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    models = [{"model": str(folder / f"m{seed}"), "parameters": {"weight": 0.5}} for seed in (1, 2)]
    plan = plan_merge(MergeRecipe.model_validate({"merge_method": "linear", "models": models}), "native")
    merge_to_directory(plan, folder / "out", threads=1)
    loaded, info = type(model).from_pretrained(folder / "out", output_loading_info=True, dtype=torch.float32)
    one, other = states
    mean = {name: (one[name] + other[name]) / 2 if one[name].is_floating_point() else one[name] for name in one}
    return loaded, info, mean
