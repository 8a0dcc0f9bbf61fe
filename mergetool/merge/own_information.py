"""The Fisher information of each model of a merge on that model's own rows, and where a tensor on disk is found in it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from typing import NamedTuple

import torch

from mergetool.activations.fisher_file import FisherFile
from mergetool.architecture.reading import reading_of
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.rows import Rows, row_count
from mergetool.merge.plan import Source, TensorPlan
from mergetool.ops.blocks import ReadBlock
from mergetool.ops.consensus.fisher import Information

_NOTHING = 1e-12
"""Of the mean F: what rounding leaves of a gradient that is zero, squared, and less."""


class Part(NamedTuple):
    """`numel` entries of a tensor on disk from `start` on: those of a weight in memory from `at` on, all of them flat."""

    start: int
    weight: str
    at: int
    numel: int


def parts_in_memory(layout: Layout) -> dict[str, list[Part]]:
    """Tensor on disk -> which entries of which weights in memory it holds, in its own order."""
    reading = reading_of(layout)
    if reading is None:
        return {}
    found = {name: [Part(0, weight, 0, layout.tensors[name].numel)] for name, weight in reading.live.items()}
    for weight in reading.fused:
        for run in reading.runs(weight) or ():
            found.setdefault(run.name, []).append(Part(run.start, weight, run.at, run.numel))
    return {name: sorted(parts) for name, parts in found.items()}


class OwnInformation:
    """The Fisher information of one merge's models, one file for each. Threads share it.

    Args:
        files: in the models' order.
        sources: of the plan.
        vocabulary: for each source, tensor -> the rows that it is shown with where these are not its own.
    """

    lacking = "have no Fisher information"

    def __init__(
        self, files: Sequence[FisherFile], sources: Sequence[Source], vocabulary: Sequence[Mapping[str, Rows]] = ()
    ) -> None:
        self._files, self._sources, self._vocabulary = files, sources, vocabulary
        self._parts: dict[int, dict[str, list[Part]]] = {}
        self._units = tuple(map(_mean, files))
        self._lock = threading.Lock()

    def known(self, tensor: TensorPlan) -> Information | None:
        """Of one tensor; None where some model's is not known, or no model has any."""
        found = [self._of_model(i, tensor, term.source) for i, term in enumerate(tensor.terms)]
        known = [one for one in found if one is not None]
        if len(known) < len(found) or not max(mean for _, mean in known) > _NOTHING * max(self._units):
            return None
        return Information(tuple(read for read, _ in known), self._units)

    def unknown(self, tensors: Sequence[TensorPlan]) -> list[str]:
        """The tensors of which the weighted mean is taken."""
        return [tensor.name for tensor in tensors if tensor.floating and self.known(tensor) is None]

    def _of_model(self, i: int, tensor: TensorPlan, source: int) -> tuple[ReadBlock, float] | None:
        """(reader, mean) of F of a model's tensor; None where some of its entries have none."""
        file, held = self._files[i], self._sources[source]
        stored = held.stored_name(tensor.name)
        rows = self._vocabulary[source].get(stored) if self._vocabulary else None
        shape = tensor.shape if rows is None else rows.stored.shape
        parts = self._parts_of(i, (tensor.name, stored), shape, held.layout)
        if not parts:
            return None
        read, numel = partial(_block, file, parts), prod(shape)
        mean = sum(file.means[part.weight] * part.numel for part in parts) / max(numel, 1)
        return (read if rows is None else _shown(read, rows, numel // row_count(shape))), mean

    def _parts_of(self, i: int, names: Sequence[str], shape: tuple[int, ...], layout: Layout) -> list[Part]:
        """Where the entries of a model's tensor, whatever it is called, are in its F; none where it lacks some."""
        file, there = self._files[i], self._in_memory(i, layout)
        for name in names:
            if file.shapes.get(name) == shape:
                return [Part(0, name, 0, prod(shape))]
            parts = there.get(name, [])
            within = all(part.at + part.numel <= prod(file.shapes.get(part.weight, (0,))) for part in parts)
            if parts and within and sum(part.numel for part in parts) == prod(shape):
                return parts
        return []

    def _in_memory(self, i: int, layout: Layout) -> dict[str, list[Part]]:
        with self._lock:
            if i not in self._parts:
                self._parts[i] = parts_in_memory(layout)
            return self._parts[i]


def _mean(file: FisherFile) -> float:
    """Of F over all entries of a model."""
    sizes = {name: prod(shape) for name, shape in file.shapes.items()}
    return sum(file.means[name] * size for name, size in sizes.items()) / max(sum(sizes.values()), 1)


def _shown(read: ReadBlock, rows: Rows, width: int) -> ReadBlock:
    """F with the rows that its tensor is shown with; a row that is not the model's own has no information."""

    def block(start: int, stop: int) -> torch.Tensor:
        first, last = start // width, -(-stop // width)
        out = torch.zeros(last - first, width)
        for at, row in enumerate(rows.taken[first:last].tolist()):
            if row >= 0:
                out[at] = read(row * width, (row + 1) * width)
        return out.view(-1)[start - first * width : stop - first * width]

    return block


def _block(file: FisherFile, parts: Sequence[Part], start: int, stop: int) -> torch.Tensor:
    """The flat entries [start, stop) of F of a tensor on disk."""
    found = []
    for part in parts:
        first, last = max(start, part.start), min(stop, part.start + part.numel)
        if first < last:
            found.append(file.block(part.weight, part.at + first - part.start, part.at + last - part.start))
    return found[0] if len(found) == 1 else torch.cat(found)
