"""How far the weights are from θ_s while they are trained: a merge that does nothing is seen while it does it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mergetool.align.result import order_of, part_of
from mergetool.checkpoint.open import layout_of
from mergetool.checkpoint.place import Directory


class Drift:
    """Distances to θ_s by layer, read from the mapped checkpoint a block at a time: no memory beside a block.

    Args:
        sft: the directory of θ_s.
    """

    def __init__(self, sft: Path) -> None:
        from mergetool.optim.reference import Reference

        self._start = Reference.from_checkpoints(None, sft, storage="mmap").points()
        self._shapes = {name: tuple(tensor.shape) for name, tensor in layout_of(Directory(sft)).tensors.items()}

    def layers(self, model: Any) -> dict[str, float]:
        """‖θ − θ_s‖₂ of each layer, over all ranks; every rank must call it.

        Args:
            model: its parameters may be DTensors.

        Returns:
            Layer ("layer 3", "embed_tokens", ...) -> distance, in the model's order; empty where the trained
            parameters are adapters, which θ_s does not have.
        """
        import torch

        from mergetool.optim.names import canonical
        from mergetool.optim.sharding import blocks_of, local, shard_of

        squares: dict[str, float] = {}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                name = canonical(name)
                stored = self._start.stored_name(name)
                if stored is None:
                    continue
                shape = self._shapes.get(stored, ())
                if len(shape) == parameter.ndim == 2 and shape[0] < parameter.shape[0]:
                    parameter = parameter[: shape[0]]  # words that a chat template has brought are in no SFT model
                shard, theta = shard_of(parameter), local(parameter)
                origin = self._start.delta(name, shard, theta.device)
                assert origin is not None  # it has a stored name
                here = 0.0
                for at, stop in blocks_of(shard):
                    away = theta[at:stop].float() - origin.block(at, stop)
                    here += float(torch.dot(away, away))
                part = part_of(name)
                squares[part] = squares.get(part, 0.0) + shard.total([here])[0]
        return {part: math.sqrt(squares[part]) for part in sorted(squares, key=order_of)}
