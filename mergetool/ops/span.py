"""The span of a few vectors over all tensors of a model: an orthonormal basis of it, and a vector without its part in it.

There is one inner product over all tensors together, in fp64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from mergetool.ops.blocks import spans

Vector = Mapping[str, torch.Tensor]
"""Name -> a flat tensor. All vectors that are used together have the same sizes under the same names."""

DEPENDENT = 1e-6
"""What is left of a vector outside the span of those before it, relative to its length, where fp32 cannot tell it from 0."""

_BLOCK = 1 << 22  # entries at a time: 32 MiB of fp64, few calls on an accelerator


def inner(a: Vector, b: Vector) -> float:
    """The inner product over all tensors, in fp64; 0 of no tensors."""
    total: torch.Tensor | None = None
    for name, left in a.items():
        right = b[name]
        for at, stop in spans(left.numel(), _BLOCK):
            part = torch.dot(left[at:stop].double(), right[at:stop].double())
            total = part if total is None else total.add_(part)
    return 0.0 if total is None else float(total)


def _subtract(x: Vector, vector: Vector, coefficient: float) -> None:
    """x <- x - coefficient * vector, in place, each entry rounded once to its type."""
    for name, entries in x.items():
        for at, stop in spans(entries.numel(), _BLOCK):
            part = entries[at:stop]
            part.copy_(torch.add(part.float(), vector[name][at:stop], alpha=-coefficient))


@dataclass(frozen=True)
class Span:
    """An orthonormal basis.

    Attributes:
        basis: U, fp32 vectors; none where all that it was made of is zero.
    """

    basis: Sequence[Vector]

    @classmethod
    def of(cls, vectors: Sequence[Vector]) -> Span:
        """The span of `vectors`, by modified Gram-Schmidt, twice over.

        Args:
            vectors: fp32; they are used up: the basis is in their memory. One that lies in the span of those before it adds
                nothing.

        Raises:
            ValueError: a vector has an entry that is no number.
        """
        basis: list[Vector] = []
        for vector in vectors:
            length = math.sqrt(inner(vector, vector))
            if not math.isfinite(length):
                raise ValueError("a vector has an entry that is no number")
            for _ in range(2):  # what rounding leaves the first time, the second time takes
                for one in basis:
                    _subtract(vector, one, inner(one, vector))
            left = math.sqrt(inner(vector, vector))
            if left > DEPENDENT * length:
                for entries in vector.values():
                    entries.div_(left)
                basis.append(vector)
        return cls(basis)

    def coordinates(self, x: Vector) -> list[float]:
        """U^T x."""
        return [inner(x, one) for one in self.basis]

    def subtract(self, x: Vector, coordinates: Sequence[float]) -> None:
        """x <- x - U coordinates, in place."""
        for one, coordinate in zip(self.basis, coordinates, strict=True):
            _subtract(x, one, coordinate)
