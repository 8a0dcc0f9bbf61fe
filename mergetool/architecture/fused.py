"""Weights that transformers makes of several tensors on disk, or of a part of one: which run of which tensor each entry is.

A mixture of experts is stored an expert a tensor and held in memory as one tensor a layer. transformers stacks and joins
them with its own operations; the same operations are followed here on the places of entries, so that one slice of the
weight can be read without the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from mergetool.errors import CheckpointError

_MOST_RUNS = 1 << 17  # of one weight; a layer of 256 experts has 512


class Piece(NamedTuple):
    """`numel` entries of a weight from `at` on: those of tensor `name` from `start` on, all of them flat."""

    at: int
    name: str
    start: int
    numel: int


Runs = tuple[Piece, ...]


@dataclass(frozen=True)
class Fused:
    """A weight that several tensors on disk make, or a part of one.

    Attributes:
        converter: transformers' own WeightConverter.
        sources: pattern -> (tensor on disk, its shape), in the order in which transformers collects them.
        part: which target of the converter it is.
    """

    converter: Any
    sources: Mapping[str, Sequence[tuple[str, tuple[int, ...]]]]
    part: int

    @property
    def names(self) -> list[str]:
        """The tensors on disk."""
        return [name for sources in self.sources.values() for name, _ in sources]


class _Tensor(NamedTuple):
    """A tensor as runs in its flat order: (name, start, numel)."""

    shape: tuple[int, ...]
    runs: list[tuple[str, int, int]]


def assembled(weight: str, shape: tuple[int, ...], fused: Fused) -> Runs:
    """Where the entries of a fused weight lie on disk.

    Args:
        weight: its name, for messages.
        shape: its shape in memory.
        fused: what it is made of.

    Raises:
        CheckpointError: an operation of the converter does more than lay tensors beside one another.
    """
    held = {
        pattern: [_Tensor(shape_, [(name, 0, prod(shape_))]) for name, shape_ in sources]
        for pattern, sources in fused.sources.items()
    }
    for operation in fused.converter.operations:
        follow = _FOLLOWED.get(type(operation).__name__)
        if follow is None:
            raise CheckpointError(
                f"'{weight}' is computed from '{fused.names[0]}' by transformers' {type(operation).__name__}",
                "save the checkpoint in memory's own names: save_pretrained(..., save_original_format=False)",
            )
        held = follow(held, operation, fused)
    parts = [tensor for tensors in held.values() for tensor in tensors]
    whole = parts[fused.part] if fused.part < len(parts) else None
    if whole is None or whole.shape != shape:
        raise CheckpointError(
            f"'{weight}' has shape {list(shape)}, but {list(whole.shape) if whole else 'nothing'} of it is on disk",
            "fetch the checkpoint again: a tensor of it is missing",
        )
    pieces, at = [], 0
    for name, start, numel in whole.runs:
        pieces.append(Piece(at, name, start, numel))
        at += numel
    return tuple(pieces)


_Held = dict[str, list[_Tensor]]


def _stacked(held: _Held, operation: Any, fused: Fused) -> _Held:
    """MergeModulelist: the tensors of each pattern become one with a dimension more."""
    return {p: [_Tensor((len(ts), *ts[0].shape), [r for t in ts for r in t.runs])] for p, ts in held.items()}


def _joined(held: _Held, operation: Any, fused: Fused) -> _Held:
    """Concatenate: slab by slab of the dimensions before the one that is joined along."""
    tensors = [t for pattern in fused.converter.source_patterns for t in held.get(pattern, [])]
    dim = operation.dim % len(tensors[0].shape)
    slabs = [_slabs(t, prod(t.shape[:dim])) for t in tensors]
    shape = (*tensors[0].shape[:dim], sum(t.shape[dim] for t in tensors), *tensors[0].shape[dim + 1 :])
    return {"joined": [_Tensor(shape, [r for row in zip(*slabs, strict=True) for slab in row for r in slab])]}


def _chunked(held: _Held, operation: Any, fused: Fused) -> _Held:
    """Chunk: equal parts along a dimension, one for each target."""
    (tensor,) = [t for tensors in held.values() for t in tensors]
    dim, parts = operation.dim % len(tensor.shape), len(fused.converter.target_patterns)
    outer = prod(tensor.shape[:dim])
    rows = _slabs(tensor, outer * parts)
    shape = (*tensor.shape[:dim], tensor.shape[dim] // parts, *tensor.shape[dim + 1 :])
    return {"parts": [_Tensor(shape, [r for i in range(outer) for r in rows[i * parts + k]]) for k in range(parts)]}


_FOLLOWED: dict[str, Callable[[_Held, Any, Fused], _Held]] = {
    "MergeModulelist": _stacked,
    "Concatenate": _joined,
    "Chunk": _chunked,
}
"""transformers' operations (5.23) that lay entries beside one another and do nothing else; stacking is along dimension 0."""


def _slabs(tensor: _Tensor, count: int) -> list[list[tuple[str, int, int]]]:
    """The runs of a tensor, cut into `count` equal slabs of its flat order."""
    if count > _MOST_RUNS:
        raise CheckpointError(
            f"'{tensor.runs[0][0]}' lies in memory in more than {_MOST_RUNS:,} pieces",
            "save the checkpoint in memory's own names: save_pretrained(..., save_original_format=False)",
        )
    each = prod(tensor.shape) // count
    slabs: list[list[tuple[str, int, int]]] = [[] for _ in range(count)]
    at = 0
    for name, start, numel in tensor.runs:
        while numel:
            room = each - at % each
            taken = min(room, numel)
            slabs[at // each].append((name, start, taken))
            at, start, numel = at + taken, start + taken, numel - taken
    return slabs
