"""What two configurations compute differently though their weights have one shape: rope, heads, activation, norm, windows.

The average of two models that read the same matrices in different ways is no model. The configuration's class fills in
what a file leaves out, so that a default that is written down differs from none that is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple


class Difference(NamedTuple):
    """One key, dotted where it is nested, and its two values."""

    key: str
    ours: Any
    theirs: Any


# Keys that say how weights are used. What training, generation and other programs read is none of them.
_COMPUTES = re.compile(
    r"rope_(theta|parameters|scaling|local_base_freq|type|ratio|percent|pct|interleaved?)|rotary\w*|partial_rotary_factor|"
    r"(num_|n_)?(attention_heads|key_value_heads|heads?|head_kv|kv_heads)|num_\w*heads|n_head|multi_query|head_dim|\w*_head_dim|"
    r"hidden_act|hidden_activation|activation|activation_function|\w*_act(ivation)?(_fn)?|"
    r"(rms_norm|layer_norm|norm|layernorm|group_norm)_(eps|epsilon)|\w*_norm_(eps|epsilon)|layer_norm_epsilon|norm_epsilon|"
    r"sliding_window(_pattern|_size)?|use_sliding_window|max_window_layers|layer_types|attention_chunk_size|local_attention|"
    r"no_rope_layers|no_rope_layer_interval|window_size|attention_types|global_attn_every_n_layers|"
    r"\w*softcap(ping)?|query_pre_attn_scalar|attention_multiplier|embedding_multiplier|residual_multiplier|logits_scaling|"
    r"logit_scale|scale_embedding|scale_attn\w*|mup_\w+|alibi|use_alibi|position_embedding_type|parallel_attn|use_parallel_residual|"
    r"num_experts_per_tok|norm_topk_prob|routed_scaling_factor|topk_method|n_group|topk_group|scoring_func|top_k|"
    r"qk_norm|use_qk_norm|layer_norm_(before|first)|normalize_before|do_layer_norm_before|state_size|time_step_\w+"
)
_PARTS = ("text_config", "vision_config", "audio_config", "encoder", "decoder", "thinker_config", "llm_config")


def config_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Difference]:
    """The keys by which two models of one type would use the same weights differently; empty where there is none.

    Args:
        ours, theirs: as config.json holds them.
    """
    if ours.get("model_type") != theirs.get("model_type"):
        return [Difference("model_type", ours.get("model_type"), theirs.get("model_type"))]
    if _computing(ours) == _computing(theirs):
        return []  # as most are; their classes need not be asked
    found = _compared(_complete(ours), _complete(theirs), "")
    return list(dict.fromkeys(found)) if all(map(_hashable, found)) else found


def said(differences: list[Difference]) -> str:
    """The differences in one line: ``rope_theta (10000.0 and 500000.0)``."""
    return ", ".join(f"{d.key} ({d.theirs!r} and {d.ours!r})" for d in differences)


def _computing(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration, as it is written, that says how weights are used."""
    parts = {key: _computing(value) for key, value in config.items() if key in _PARTS and isinstance(value, dict)}
    return parts | {key: value for key, value in config.items() if _COMPUTES.fullmatch(key)}


def _hashable(difference: Difference) -> bool:
    return not any(isinstance(value, (list, dict)) for value in difference)


def _complete(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration with its class's defaults; as it is where transformers does not know it."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return config
    try:
        return CONFIG_MAPPING[kind].from_dict(dict(config)).to_dict()
    except Exception:  # a value that the class refuses: the loader will say so
        return config


def _compared(ours: Mapping[str, Any], theirs: Mapping[str, Any], at: str) -> list[Difference]:
    found = []
    for key in dict.fromkeys([*ours, *theirs]):
        one, other = ours.get(key), theirs.get(key)
        if one == other:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            if key in _PARTS or key in ("rope_parameters", "rope_scaling"):
                found += _rope(one, other, f"{at}{key}.") if key.startswith("rope") else _compared(one, other, f"{at}{key}.")
        elif _COMPUTES.fullmatch(key):
            found.append(Difference(f"{at}{key}", one, other))
    return found


def _rope(ours: Mapping[str, Any], theirs: Mapping[str, Any], at: str) -> list[Difference]:
    """Every word on rope computes; parameters may be nested once more, for each type of layer."""
    found = []
    for key in dict.fromkeys([*ours, *theirs]):
        one, other = ours.get(key), theirs.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += _rope(one, other, f"{at}{key}.")
        elif one != other:
            found.append(Difference(f"{at}{key}", one, other))
    return found
