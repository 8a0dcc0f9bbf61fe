"""Learned positions end where their table ends; computed ones do not."""

from __future__ import annotations

import pytest

from mergetool.architecture.context import learned_positions

SMALL = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"model_type": "gpt2", "vocab_size": 64, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 48}, 48),
        ({"model_type": "opt", **SMALL, "ffn_dim": 16, "word_embed_proj_dim": 16, "max_position_embeddings": 32}, 32),
        ({"model_type": "gpt_bigcode", "vocab_size": 64, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 40}, 40),
        ({"model_type": "llama", **SMALL, "max_position_embeddings": 64}, None),
        ({"model_type": "bloom", "vocab_size": 64, "hidden_size": 16, "n_layer": 1, "n_head": 2}, None),
        ({"model_type": "nobody's"}, None),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else str(value),
)
def test_a_table_of_positions_is_found_by_its_rows(config: dict, longest: int | None) -> None:
    assert learned_positions(config) == longest
