"""RegMean: the map that comes closest to every model's own map, each on the inputs that its own rows give it.

Written around the model of largest weight, W_a − Σ (W_a − W_i) P_i, so that models that are equal give the model back bit for
bit. Products are taken in fp64, over the same rows of a matrix however a tensor is cut into blocks.

Source: RegMean, Jin et al. 2023, arXiv 2212.09849, equation 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from mergetool.ops.consensus import Buffer, Consensus, WholeInputs, normalized
from mergetool.ops.consensus.linear import blend
from mergetool.ops.projector import ROWS
from mergetool.ops.regression import Shares, Side, Sides


def rows_of(shape: Sequence[int]) -> int:
    """Rows of one matrix product: `ROWS`, or as many that a stack's matrices are cut evenly."""
    height = shape[-2] if len(shape) > 1 else 1
    if len(shape) < 3:
        return max(min(ROWS, height), 1)
    return max(count for count in range(1, min(ROWS, height) + 1) if height % count == 0)


class Piece(NamedTuple):
    """Rows of a block that lie in one matrix: which one, the first's number in it, and where its entries are in the block."""

    matrix: int
    row: int
    start: int
    stop: int


@dataclass
class Regression:
    """One tensor, before its entries come.

    Attributes:
        shape: of the tensor; one of a single dimension is read as a column.
        weights: of the models, their sum 1.
        off_diagonal: see `regression.shares`.
        sides: of the matrices: one for each, or one for all; none: the weighted mean.
        of_rows: whether the second last dimension is what reads.
        swept: Σ A_iᵀ Δ_i of each matrix, where it mixes rows; fp64.
    """

    shape: tuple[int, ...]
    weights: list[float]
    off_diagonal: float
    sides: tuple[Side, ...]
    of_rows: bool
    swept: list[torch.Tensor | None]

    @property
    def anchor(self) -> int:
        """The model that the others are taken as differences from."""
        return self.weights.index(max(self.weights))

    @property
    def width(self) -> int:
        """Entries of a row."""
        return self.shape[-1] if len(self.shape) > 1 else 1

    @property
    def height(self) -> int:
        """Rows of one matrix."""
        return self.shape[-2] if len(self.shape) > 1 else math.prod(self.shape)

    def shares(self, matrix: int) -> Shares | None:
        """Of one matrix."""
        return self.sides[matrix % len(self.sides)](tuple(self.weights), self.off_diagonal, self.anchor)

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """A block of whole rows, cut for matrix products."""
        step = rows_of(self.shape) if len(self.shape) > 1 else stop - start
        first, last = start // self.width, stop // self.width
        for row in range(first, last, step):
            end = min(row + step, last)
            yield Piece(*divmod(row, self.height), (row - first) * self.width, (end - first) * self.width)

    def others(self, parts: Sequence[torch.Tensor], piece: Piece) -> Iterator[tuple[int, torch.Tensor]]:
        """(i, W_a − W_i) of every model but the anchor: rows of it, fp64."""
        start, stop = piece.start, piece.stop
        anchor = parts[self.anchor][start:stop].double()
        for i, part in enumerate(parts):
            if i != self.anchor:
                yield i, (anchor - part[start:stop].double()).view(-1, self.width)


class RegMean(Consensus):
    """(Σ wᵢ·Wᵢ·Gᵢ)(Σ wᵢ·Gᵢ)⁻¹, Gᵢ the second moment of what Wᵢ reads on its model's own rows."""

    def statistic(self, inputs: WholeInputs) -> Regression:
        """The weights, and of a weight that is stored as (in, out) what its rows become together."""
        sides: Sides = inputs.known or Sides()
        of_rows = not sides.columns or len(inputs.shape) == 1
        found = Regression(
            inputs.shape, normalized(inputs.weights), inputs.options["off_diagonal"], sides.columns or sides.rows, of_rows, []
        )
        if of_rows and found.sides and len(inputs.reads) > 1:
            self._sweep(found, inputs)
        return found

    def together(self, shape: Sequence[int]) -> int:
        """The rows of one matrix product."""
        return rows_of(shape) * (shape[-1] if len(shape) > 1 else 1)

    def _sweep(self, found: Regression, inputs: WholeInputs) -> None:
        for matrix in range(max(math.prod(found.shape[:-2]), 1)):
            shares = found.shares(matrix)
            if shares is None or shares.left is None:
                found.swept.append(None)
                continue
            size = found.height * found.width
            rank = next(a.shape[1] for i, a in enumerate(shares.left) if i != found.anchor)
            total = torch.zeros(rank, found.width, dtype=torch.float64, device=shares.left[0].device)
            step = rows_of(found.shape) * found.width
            for start in range(matrix * size, (matrix + 1) * size, step):
                stop = min(start + step, (matrix + 1) * size)
                parts = [read(start, stop) for read in inputs.reads]
                row = (start - matrix * size) // found.width
                for i, delta in found.others(parts, Piece(matrix, row, 0, stop - start)):
                    total.addmm_(shares.left[i][row : row + delta.shape[0]].T, delta)
            found.swept.append(total)

    def at(self, statistic: Regression, start: int, stop: int) -> tuple[Regression, int, int]:
        """Where the block lies too."""
        return statistic, start, stop

    def combine(self, parts: Sequence[torch.Tensor], statistic: tuple[Regression, int, int], buffer: Buffer) -> torch.Tensor:
        """As `Consensus.combine`; a part is a block of whole rows."""
        found, start, stop = statistic
        if len(parts) == 1:
            return parts[0]
        out = buffer("mixed")
        if not found.sides:
            return blend(parts, found.weights, out)
        for piece in found.pieces(start, stop):
            here = slice(piece.start, piece.stop)
            shares = found.shares(piece.matrix)
            if shares is None:
                blend([part[here] for part in parts], found.weights, out[here])
                continue
            away = self._away(found, shares, parts, piece).view(-1)
            out[here] = parts[found.anchor][here].double().sub_(away)
        return out

    def _away(self, found: Regression, shares: Shares, parts: Sequence[torch.Tensor], piece: Piece) -> torch.Tensor:
        """Σ (W_a − W_i) P_i, or P_iᵀ (W_a − W_i): some rows of it."""
        rows = slice(piece.row, piece.row + (piece.stop - piece.start) // found.width)
        away, seen = torch.zeros((), dtype=torch.float64), None
        for i, delta in found.others(parts, piece):
            if not found.of_rows and shares.left is not None:
                one = shares.seen(i, delta)
                seen = one if seen is None else seen.add_(one)
            diagonal = shares.diagonal[i]
            away = away + delta.mul_(diagonal[rows, None] if found.of_rows else diagonal)
        if found.of_rows and (swept := found.swept[piece.matrix]) is not None:
            away = away + (swept[rows] if shares.right is None else shares.right[rows] @ swept)
        elif seen is not None:
            away = away + shares.back(seen)
        return away + 0.0  # no zero with a sign, which would change the anchor's


CONSENSUS = RegMean()
