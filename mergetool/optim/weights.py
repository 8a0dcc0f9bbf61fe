"""Where θ_s and θ_b are read from: tensors in memory, or a checkpoint's files, by the names of the live model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch


class Weights(Protocol):
    """Whole tensors by name; flat parts of them are read when they are asked for."""

    in_memory: bool

    def find(self, name: str) -> str | None:
        """The name under which the weight `name` is held here; None where it is not."""
        ...

    def shape(self, found: str) -> tuple[int, ...]:
        """The shape of what `find` gave."""
        ...

    def part(self, found: str, start: int, stop: int) -> torch.Tensor:
        """Flat entries [start, stop), in the type that they are stored in."""
        ...

    def at(self, found: str, index: torch.Tensor) -> torch.Tensor:
        """The entries at flat indices, in the type that they are stored in."""
        ...


class InMemory:
    """Tensors by name.

    Args:
        tensors: of any floating type.
    """

    in_memory = True

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        self._flat = {name: tensor.reshape(-1) for name, tensor in self.tensors.items()}

    def find(self, name: str) -> str | None:
        """`name`, if it is here."""
        return name if name in self.tensors else None

    def shape(self, found: str) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(self.tensors[found].shape)

    def part(self, found: str, start: int, stop: int) -> torch.Tensor:
        """Flat entries [start, stop)."""
        return self._flat[found][start:stop]

    def at(self, found: str, index: torch.Tensor) -> torch.Tensor:
        """The entries at flat indices."""
        flat = self._flat[found]
        return flat[index.to(flat.device)]
