"""A checkpoint's weights by the names of the live model, read in parts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import prod

import torch

from mergetool.architecture.fused import Runs
from mergetool.architecture.reading import Reading, reading_of
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.open import open_reader
from mergetool.checkpoint.reader import Reader


class InFiles:
    """A checkpoint's weights, mapped.

    A name that the files do not have is what transformers calls the weight in memory: it is looked for under the name that
    transformers gives it on disk, under what it is tied to, and, where it is several tensors on disk, among them.

    Args:
        layout: the checkpoint's headers; its files are on this disk.
        stands_for: another checkpoint's name -> the tensor here, where the names on disk differ.
        reader: of the files, where one is open.
    """

    in_memory = False

    def __init__(self, layout: Layout, stands_for: Mapping[str, str] | None = None, reader: Reader | None = None) -> None:
        self.layout, self._stands_for = layout, stands_for or {}
        self._reader = open_reader(layout) if reader is None else reader
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
