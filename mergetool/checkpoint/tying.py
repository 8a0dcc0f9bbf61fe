"""What the weights of a written checkpoint say about tying, and its config.json made to agree."""

from __future__ import annotations

import json
from pathlib import Path

from mergetool.architecture.reading import copies_of
from mergetool.architecture.tying import untied
from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.reader import Reader, equal


def untie_if_different(directory: Path) -> bool:
    """Say in config.json that the head is untied where the weights hold one that differs from the embedding.

    Args:
        directory: a checkpoint with its config.json.

    Returns:
        Whether config.json was changed. transformers' loader keeps two tensors that differ whatever the configuration
        says; other programs believe the configuration.
    """
    layout = read_layout(directory)
    with Reader(layout) as reader:
        differing = [weight for weight, one, other in copies_of(layout) if not equal(reader, one, reader, other)]
    config = layout.config
    for weight in differing:
        config = untied(config, weight)
    if config == layout.config:
        return False
    (directory / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return True
