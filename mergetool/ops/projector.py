"""F_P for a whole tensor, some of its rows at a time.

Matrix products are taken over the same rows of a tensor (0–127, 128–255, …; more of a narrow one) whatever rows a caller
holds, so the bits of a row do not depend on how a tensor is cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from mergetool.ops.blocks import BLOCK
from mergetool.ops.projection import Factor

ROWS = 128  # of one matrix product on a CPU, at least
_ROWS_OF_NARROW = 512
_ROWS_ON_GPU = 1 << 13


def block_rows(device: torch.device, width: int | None = None) -> int:
    """Rows of one matrix product.

    Args:
        device: of the product.
        width: entries of a row where P acts on the columns: of a narrow matrix there are as many rows as make a block, since
            threads that share a small product wait longer for one another than they compute. None where P mixes rows.
    """
    if device.type != "cpu":
        return _ROWS_ON_GPU
    rows = ROWS
    while width is not None and rows < _ROWS_OF_NARROW and rows * width < BLOCK:
        rows *= 2
    return rows


@dataclass(frozen=True)
class Projector:
    """F_P for one tensor, read as a matrix of its last dimension's rows; one of one dimension as a single column.

    Args:
        shape: of the tensor; of three dimensions it is a stack of matrices (experts), each with its own P.
        columns: what acts on the last dimension, by matrix: one entry, or one for each expert.
        rows: what acts on the second last (an embedding's tokens; the inputs of a weight stored as (in, out)).
        scale: what is left of all of it.
    """

    shape: tuple[int, ...]
    columns: tuple[Factor | None, ...] = (None,)
    rows: tuple[Factor | None, ...] = (None,)
    scale: float = 1.0

    @property
    def identity(self) -> bool:
        """True where the delta stays as it is."""
        return self.scale == 1.0 and not any(self.columns) and not any(self.rows)

    @property
    def width(self) -> int:
        """Entries of a row."""
        return self.shape[-1] if len(self.shape) > 1 else 1

    @property
    def height(self) -> int:
        """Rows in one matrix of the stack."""
        return self.shape[-2] if len(self.shape) > 1 else math.prod(self.shape)

    @property
    def sweeps(self) -> bool:
        """True where `project` needs `sweep` over all rows beforehand: P mixes the rows."""
        return any(one is not None and one.low_rank is not None for one in self.rows)

    @property
    def nbytes(self) -> int:
        """Memory of its factors, bytes."""
        held = {id(one): one for one in (*self.columns, *self.rows) if one is not None}
        return sum(one.nbytes for one in held.values())

    def to(self, device: torch.device | str) -> Projector:
        """The same on a device."""
        columns, rows = (tuple(None if one is None else one.to(device) for one in side) for side in (self.columns, self.rows))
        return Projector(self.shape, columns, rows, self.scale)

    def project_(self, delta: torch.Tensor, first: int = 0, swept: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        """F_P(Δ) for some rows of the tensor, in place.

        Args:
            delta: rows of Δ, shape (count, width), contiguous; fp32.
            first: the row of the whole tensor (its leading dimensions flattened) that they start at.
            swept: what `sweep` gave for all rows, where `sweeps`.
        """
        for expert, start, stop, row in self._matrices(delta, first):
            part = delta[start:stop]
            columns, rows = self._sides(expert)
            if rows is not None and rows.low_rank is not None:
                _subtract_(part, rows, swept[expert], self.height, row)
            elif rows is not None and rows.diagonal is not None:
                part.mul_(rows.diagonal[row : row + stop - start, None])
            if columns is not None and columns.low_rank is not None:
                project_columns_(part, columns, self.height, row)
            elif columns is not None and columns.diagonal is not None:
                part.mul_(columns.diagonal)
        return delta if self.scale == 1.0 else delta.mul_(self.scale)

    def sweep(self) -> list[torch.Tensor]:
        """Room for Bᵀ·Δ of each matrix, zero: shape (r, width); fp32. `sweep_` adds the rows to it."""
        found = []
        for one in self.rows:
            low_rank = None if one is None else one.low_rank
            device = None if low_rank is None else low_rank.device
            found.append(torch.zeros(0 if low_rank is None else low_rank.shape[1], self.width, device=device))
        return found

    def sweep_(self, swept: Sequence[torch.Tensor], delta: torch.Tensor, first: int = 0) -> None:
        """Adds some rows of Δ to what `sweep` made: all of them, ascending, in pieces that end at multiples of `block_rows`.

        Args:
            swept: of `sweep`.
            delta, first: as `project_`.
        """
        for expert, start, stop, row in self._matrices(delta, first):
            _, rows = self._sides(expert)
            if rows is None or rows.low_rank is None:
                continue
            for a, b, low, _ in _blocks(row, stop - start, self.height, block_rows(delta.device)):
                swept[expert].addmm_(rows.low_rank[low : low + b - a].T, delta[start + a : start + b])

    def _sides(self, expert: int) -> tuple[Factor | None, Factor | None]:
        return self.columns[expert % len(self.columns)], self.rows[expert % len(self.rows)]

    def _matrices(self, delta: torch.Tensor, first: int) -> Iterator[tuple[int, int, int, int]]:
        """(expert, start, stop, its row) for the pieces of `delta` that lie in one matrix of the stack."""
        start, height = 0, self.height
        while start < delta.shape[0]:
            expert, row = divmod(first + start, height)
            stop = min(delta.shape[0], start + height - row)
            yield expert, start, stop, row
            start = stop


def _blocks(first: int, count: int, height: int, step: int) -> Iterator[tuple[int, int, int, int]]:
    """(start, stop, row, block's height): the rows [first, first + count) cut at multiples of `step`."""
    start = 0
    while start < count:
        row = first + start
        end = min((row // step + 1) * step, height)
        stop = min(count, start + end - row)
        yield start, stop, row, end - row // step * step
        start = stop


def project_columns_(delta: torch.Tensor, side: Factor, height: int | None = None, first: int = 0) -> torch.Tensor:
    """Δ ← left·Δ − (Δ B) Bᵀ, in place.

    Args:
        delta: some rows of Δ, shape (count, n); fp32.
        side: with B, shape (n, r).
        height: rows of the whole matrix; None: `delta` is all of it.
        first: the row of the whole matrix that `delta` starts at.
    """
    assert side.low_rank is not None
    b, height = side.low_rank, delta.shape[0] if height is None else height
    step = block_rows(delta.device, delta.shape[1])
    for start, stop, row, whole in _blocks(first, delta.shape[0], height, step):
        part = delta[start:stop]
        block, at = _whole(part, row, whole, step)
        block.addmm_(block @ b, b.T, beta=side.left, alpha=-1)
        if block is not part:
            part.copy_(block[at : at + stop - start])
    return delta


def _subtract_(delta: torch.Tensor, side: Factor, swept: torch.Tensor, height: int, first: int) -> None:
    """Δ ← left·Δ − B (Bᵀ Δ) for some rows, `swept` being Bᵀ Δ of all."""
    assert side.low_rank is not None
    step = block_rows(delta.device)
    for start, stop, row, whole in _blocks(first, delta.shape[0], height, step):
        part = delta[start:stop]
        block, at = _whole(part, row, whole, step)
        b, _ = _whole(side.low_rank[row : row + stop - start], row, whole, step)
        block.addmm_(b, swept, beta=side.left, alpha=-1)
        if block is not part:
            part.copy_(block[at : at + stop - start])


def _whole(rows: torch.Tensor, first: int, count: int, step: int) -> tuple[torch.Tensor, int]:
    """The block of `count` rows, from a multiple of `step`, that some rows belong to, zero elsewhere, and where they are in it.

    A product of fewer rows may round otherwise, so it is always taken of a whole block.
    """
    if rows.shape[0] == count:
        return rows, 0
    block, at = rows.new_zeros(count, rows.shape[1]), first % step
    block[at : at + rows.shape[0]] = rows
    return block, at
