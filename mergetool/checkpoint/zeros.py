"""Checkpoints whose weights were never written: all of them zero."""

from __future__ import annotations

from dataclasses import replace

from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.reader import PickledReader, Reader
from mergetool.errors import CheckpointError

_AT_ONCE = 1 << 20


def must_hold_weights(layout: Layout) -> None:
    """Refuses a checkpoint without a weight that is not zero; of any other the beginning of a tensor is read.

    Args:
        layout: its files are on this disk. Codes are looked at as they are stored, and an adapter is not.

    Raises:
        CheckpointError: all weights are 0.
    """
    if layout.in_form is not None:
        layout = layout.in_form.below
    tensors = layout.dequantised.raw if layout.dequantised is not None else layout.tensors
    stored = replace(layout, tensors=tensors, dequantised=None, adapter=None)
    weights = {name: info for name, info in tensors.items() if info.floating}
    with PickledReader(stored) if layout.pickled else Reader(stored) as reader:
        for name, info in weights.items():
            flat = reader.tensor(name).view(-1)
            if any(bool(flat[start : start + _AT_ONCE].float().any()) for start in range(0, info.numel, _AT_ONCE)):
                return
    if weights:
        raise CheckpointError(
            f"{layout.name}: all of its weights are 0",
            "save the checkpoint again: its weights were not gathered, or never loaded",
        )
