"""A checkpoint shown in another one's form: with an expert a tensor where that has them so, or as one tensor where not.

transformers reads both. Which entry of which tensor is which of a weight, it says of each of the two (`architecture.fused`);
put together, that says where the entries of the other form's tensors lie here.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from itertools import chain
from math import prod
from pathlib import Path

import torch

from mergetool.architecture.fused import Piece, Runs
from mergetool.architecture.reading import Reading, reading_of
from mergetool.checkpoint.header import TensorInfo
from mergetool.checkpoint.layout import InForm, Layout
from mergetool.checkpoint.reader import Reader
from mergetool.errors import CheckpointError


def in_form_of(layout: Layout, base: Layout) -> Layout:
    """The layout with the names of another checkpoint of its class, where it has the same weights in other tensors.

    Args:
        layout: of any checkpoint.
        base: whose form the result has.

    Returns:
        The layout itself where nothing need be laid together or taken apart. What does not match is left for `match` to say.
    """
    absent = [name for name in base.tensors if name not in layout.tensors]
    if not absent:
        return layout
    theirs, ours = reading_of(layout), reading_of(base)
    if theirs is None or ours is None:
        return layout
    shown: dict[str, Runs] = {}
    for name in absent:
        weight = ours.weight(name)
        whole = name in ours.live and theirs.stands_for(name) is not None  # one tensor in both, whatever it is called
        if not whole and theirs.holds(weight):
            try:
                runs = _composed(name, prod(base.tensors[name].shape), _runs(ours, weight), _runs(theirs, weight))
            except CheckpointError:  # transformers computes it
                return layout
            if runs is not None:
                shown[name] = runs
    if not shown:
        return layout
    used = {piece.name for piece in chain.from_iterable(shown.values())}
    tensors = {name: info for name, info in layout.tensors.items() if name not in used}
    for name, runs in shown.items():
        first, shape = layout.tensors[runs[0].name], base.tensors[name].shape
        tensors[name] = TensorInfo(name, first.dtype_name, shape, first.file, 0, prod(shape) * first.itemsize)
    return replace(layout, tensors=tensors, in_form=InForm(layout, shown))


def _runs(reading: Reading, weight: str) -> Runs:
    stored = reading.stored(weight)
    if stored is not None:
        return (Piece(0, stored, 0, prod(reading.skeleton.shapes[weight])),)
    runs = reading.runs(weight)
    assert runs is not None  # it holds the weight
    return runs


def _composed(name: str, numel: int, ours: Runs, theirs: Runs) -> Runs | None:
    """Where the entries of our tensor lie in theirs; None where some lie nowhere."""
    starts, pieces = [piece.at for piece in theirs], []
    for piece in ours:
        if piece.name != name:
            continue
        at, end = piece.at, piece.at + piece.numel
        while at < end:
            other = theirs[bisect_right(starts, at) - 1]
            taken = min(end, other.at + other.numel) - at
            if taken <= 0:
                return None
            pieces.append(Piece(piece.start + at - piece.at, other.name, other.start + at - other.at, taken))
            at += taken
    pieces.sort()
    covered = 0
    for piece in pieces:
        if piece.at != covered:
            return None
        covered += piece.numel
    return tuple(pieces) if covered == numel else None


class InFormReader(Reader):
    """Gives tensors in another form than they are stored in, on top of the reader of the form that they are stored in."""

    def __init__(self, layout: Layout, below: Reader) -> None:
        super().__init__(layout)
        assert layout.in_form is not None
        self._below, self._runs = below, layout.in_form.runs
        self._starts = {name: [piece.at for piece in runs] for name, runs in self._runs.items()}

    def block(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Flat elements [start, stop) of the tensor as it is shown, in the dtype that they are stored in."""
        if name not in self._runs:
            return self._below.block(name, start, stop)
        runs, parts = self._runs[name], []
        for piece in runs[max(bisect_right(self._starts[name], start) - 1, 0) :]:
            if piece.at >= stop:
                break
            first, last = max(start, piece.at) - piece.at, min(stop - piece.at, piece.numel)
            if first < last:
                parts.append(self._below.block(piece.name, piece.start + first, piece.start + last))
        return parts[0] if len(parts) == 1 else torch.cat(parts) if parts else torch.empty(0)

    def tensor(self, name: str) -> torch.Tensor:
        """The whole tensor as it is shown."""
        info = self._info(name)
        return self.block(name, 0, info.numel).view(info.shape)

    def release(self, file: Path) -> None:
        """Forget one file; nothing may be reading it."""
        self._below.release(file)

    def close(self) -> None:
        """Forget the maps."""
        self._below.close()
