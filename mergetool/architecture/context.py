"""How many positions a model has learned: beyond them it has no row to look up, where rotary positions only go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mergetool.architecture.skeleton import skeleton_of

_OFFSET = 8  # rows before the first position: OPT has two


def learned_positions(config: Mapping[str, Any]) -> int | None:
    """The longest sequence that a model can read; None where its positions are computed, or transformers does not know it.

    Args:
        config: as config.json holds it.
    """
    skeleton = skeleton_of(config)
    if skeleton is None:
        return None
    import torch

    model = skeleton.model
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(longest, int):
        return None
    words = model.get_input_embeddings()
    tables = [one for one in model.modules() if isinstance(one, torch.nn.Embedding) and one is not words]
    return longest if any(longest <= table.num_embeddings <= longest + _OFFSET for table in tables) else None
