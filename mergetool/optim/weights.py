"""Where θ_s and θ_b are read from: tensors in memory, or a checkpoint's files, by the names of the live model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import Protocol

import torch

from mergetool.architecture.fused import Runs
from mergetool.architecture.reading import Reading, reading_of
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.open import open_reader


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


class InFiles:
    """A checkpoint's weights, mapped.

    A name that the files do not have is what transformers calls the weight in memory: it is looked for under the name that
    transformers gives it on disk, under what it is tied to, and, where it is several tensors on disk, among them.

    Args:
        layout: the checkpoint's headers; its files are on this disk.
        stands_for: another checkpoint's name -> the tensor here, where the names on disk differ.
    """

    in_memory = False

    def __init__(self, layout: Layout, stands_for: Mapping[str, str] | None = None) -> None:
        self.layout, self._stands_for = layout, stands_for or {}
        self._reader = open_reader(layout)
        self._shapes = {name: info.shape for name, info in layout.tensors.items() if info.floating}
        self._runs: dict[str, Runs] = {}

    @cached_property
    def _reading(self) -> Reading | None:
        return reading_of(self.layout)

    def find(self, name: str) -> str | None:
        """A tensor of the files; `name` itself where the weight is several of them.

        Raises:
            CheckpointError: transformers computes the weight from what is on disk, so that no part of it can be read alone.
        """
        name = self._stands_for.get(name, name)
        if name in self._shapes or name in self._runs:
            return name
        if self._reading is None or name not in self._reading.skeleton.shapes:
            return None
        if (stored := self._reading.stored(name)) is not None:
            return stored
        if (runs := self._reading.runs(name)) is None:
            return None
        self._runs[name] = runs
        return name

    def shape(self, found: str) -> tuple[int, ...]:
        """The weight's shape in memory."""
        if found in self._runs:
            assert self._reading is not None  # it has found the runs
            return self._reading.skeleton.shapes[found]
        return self._shapes[found]

    def part(self, found: str, start: int, stop: int) -> torch.Tensor:
        """Flat entries [start, stop)."""
        if found not in self._runs:
            return self._reader.block(found, start, stop)
        pieces = [
            self._reader.block(run.name, run.start + max(start - run.at, 0), run.start + min(stop - run.at, run.numel))
            for run in self._runs[found]
            if run.at < stop and start < run.at + run.numel
        ]
        return torch.cat(pieces) if pieces else torch.empty(0)

    def at(self, found: str, index: torch.Tensor) -> torch.Tensor:
        """The entries at flat indices."""
        if found not in self._runs:
            return self._reader.block(found, 0, prod(self._shapes[found]))[index]
        runs = self._runs[found]
        which = torch.bucketize(index, torch.tensor([run.at for run in runs]), right=True) - 1
        taken: torch.Tensor | None = None
        for i in which.unique().tolist():
            run, here = runs[i], which == i
            values = self._reader.block(run.name, run.start, run.start + run.numel)[index[here] - run.at]
            taken = torch.empty(len(index), dtype=values.dtype) if taken is None else taken
            taken[here] = values
        return torch.empty(0) if taken is None else taken
