"""The stacks of layers of a checkpoint, read from how its tensors' names are built."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Place(NamedTuple):
    """Where a tensor lies: the path of its stack (``model.layers``, ``transformer.h``), and the layer in it."""

    stack: str
    layer: int


class Stacks:
    """The stacks of layers that names speak of, and how deep each is.

    A layer is a numbered module that has modules of its own, so that the numbered members of a small sequence
    (``projector.0.weight``) are none; of numbers within one another the outermost counts the layers, so that an expert
    of a layer, or a T5 block's second part, is no layer.

    Args:
        names: every tensor of a checkpoint.
        needed: those that count for the depth; all if None. A layer for multi-token prediction lies behind the last
            layer and is not one of them.
    """

    def __init__(self, names: Iterable[str], needed: Iterable[str] | None = None) -> None:
        names = list(names)
        self._stacks: set[str] = set()
        for name in names:
            parts = name.split(".")
            at = next((i for i, part in enumerate(parts) if i and part.isdecimal()), None)
            if at is not None and len(parts) > at + 2:
                self._stacks.add(".".join(parts[:at]))
        self.depth: dict[str, int] = {}
        """Stack -> its number of layers, in the order of the names."""
        for name in names if needed is None else needed:
            if (place := self.place(name)) is not None:
                self.depth[place.stack] = max(self.depth.get(place.stack, 0), place.layer + 1)

    def place(self, name: str) -> Place | None:
        """The stack and layer of a tensor; None for embeddings, final norms and heads."""
        parts = name.split(".")
        for at, part in enumerate(parts):
            if at and part.isdecimal():
                stack = ".".join(parts[:at])
                return Place(stack, int(part)) if stack in self._stacks else None
        return None

    def height(self, name: str) -> float:
        """Where in the depth a tensor lies, in [0, 1]: layer/(layers − 1); 0 outside of the stacks, 1 behind the last layer."""
        place = self.place(name)
        if place is None:
            return 0.0
        depth = self.depth.get(place.stack, 0)
        return min(place.layer / (depth - 1), 1.0) if depth > 1 else 1.0
