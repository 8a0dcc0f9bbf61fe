"""Inner products of several tensors with one another, of the whole or of each row or column: what angles are made of.

Everything that interpolates on a sphere is a combination of its inputs whose coefficients follow from these few numbers,
so that one reading of the inputs is enough, whatever the size of the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from mergetool.ops.blocks import BLOCK, ReadBlock, spans


@dataclass(frozen=True)
class Groups:
    """How the entries of a tensor are divided into vectors: entry (a, r, b) of (outer, length, inner) is in vector (a, b).

    Attributes:
        outer, length, inner: the tensor's shape, seen with the vectors' axis in the middle.
    """

    outer: int
    length: int
    inner: int

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> Groups:
        """The tensor is one vector."""
        return cls(1, math.prod(shape), 1)

    @classmethod
    def along(cls, shape: tuple[int, ...], axis: int) -> Groups:
        """A vector for each line of the tensor along `axis`; a tensor of one axis is one vector."""
        if len(shape) < 2:
            return cls.whole(shape)
        axis %= len(shape)
        return cls(math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))

    @property
    def count(self) -> int:
        """Vectors."""
        return self.outer * self.inner

    def of(self, start: int, stop: int, device: torch.device) -> torch.Tensor:
        """The vector that each of the flat entries [start, stop) belongs to; int64."""
        entry = torch.arange(start, stop, device=device)
        lines = torch.div(entry, self.length * self.inner, rounding_mode="floor")
        return lines.mul_(self.inner).add_(entry.remainder_(self.inner)) if self.inner > 1 else lines

    def spans(self) -> Iterator[tuple[int, int]]:
        """(start, stop) over all entries, in blocks that hold whole vectors or lie within one."""
        numel = self.outer * self.length * self.inner
        step = self.length if self.inner == 1 else self.inner
        if step <= BLOCK:
            yield from spans(numel, BLOCK // step * step) if step else ()
            return
        for first in range(0, numel, step):
            yield from ((first + start, first + stop) for start, stop in spans(step))


def gram_matrices(reads: Sequence[ReadBlock], groups: Groups) -> torch.Tensor:
    """The inner products of every two of some tensors, in each of their vectors.

    Args:
        reads: each gives fp32 blocks of one flat tensor, valid until the same one is read again.
        groups: the vectors.

    Returns:
        fp64, shape (vectors, tensors, tensors), on the CPU. Products are summed in fp64: differences of near vectors are
        then as exact as the angles between them need.
    """
    k = len(reads)
    result = torch.zeros(k, k, groups.count, dtype=torch.float64)
    for start, stop in groups.spans():
        blocks = [read(start, stop).to(torch.float64) for read in reads]
        for i in range(k):
            for j in range(i, k):
                _add(result[i, j], groups, start, blocks[i], blocks[j])
    for i in range(k):
        result[i, :i] = result[:i, i]
    return result.permute(2, 0, 1).contiguous()


def _add(sums: torch.Tensor, groups: Groups, start: int, x: torch.Tensor, y: torch.Tensor) -> None:
    """Add the products of a block to the sums of the vectors that it is of."""
    if groups.count == 1:
        sums += torch.dot(x, y).cpu()
        return
    first = start // (groups.length * groups.inner) * groups.inner
    if groups.inner == 1:
        if x.numel() >= groups.length:
            found = (x * y).view(-1, groups.length).sum(1).cpu()
            sums[first : first + found.numel()] += found
        else:
            sums[first] += torch.dot(x, y).cpu()
        return
    at, products = start % groups.inner, (x * y).cpu()
    while products.numel():  # a block may reach from one index of the outer axes into the next
        column = at % groups.inner
        room = groups.length * groups.inner - start % (groups.length * groups.inner)
        here = products[:room]
        into = sums[first : first + groups.inner]
        if here.numel() < groups.inner:
            into[column : column + here.numel()] += here
        else:
            into += here.view(-1, groups.inner).sum(0)
        products, start, first = products[room:], start + room, first + groups.inner
        at = 0
