"""The share that each of several maps W_i has in the map that comes closest to all of them on their own inputs.

W = argmin Σ w_i tr((W − W_i) G_i (W − W_i)ᵀ) = (Σ w_i W_i G_i) S⁻¹,  S = Σ w_i G_i,  G_i = a·C_i + (1 − a)·diag(C_i)

C_i is known by its top eigenpairs and its trace, C = U diag(e − t) Uᵀ + t·I, so that G_i = D_i + V_i V_iᵀ with a diagonal
D_i and V_i = U·√(a(e − t)). The shares P_i = w_i G_i S⁻¹ add up to I and are diagonal plus low rank too: with D = Σ w_i D_i,
Ṽ = D^-½ [√w_i V_i] and [Ṽ; I] = [Q; R⁻¹] R, a QR decomposition in which nothing is squared,

    P_i = w_i D_i/D + D^½ (Ṽ_i (R⁻¹)_i − (w_i D_i/D) Q) Qᵀ D^-½

(Woodbury's identity; Ṽ_i and (R⁻¹)_i are the columns and rows that belong to i). No n × n matrix is made, unless the factors
would hold more numbers than one does. Factors are fp64. Where no input reaches, all G_i are 0 and any W is as close: a
billionth of the inputs' mean square is added to each G_i, which makes that the weighted mean.

Source: RegMean, Jin et al. 2023, arXiv 2212.09849, equation 2 and §3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from mergetool.ops.projection import Moments, spread

RIDGE = 1e-9


class Shares(NamedTuple):
    """P_i of every map, each diag(diagonal_i) + A_i Bᵀ; fp64.

    Args:
        diagonal: of each map, shape (n,).
        left: A_i of each map, shape (n, r); None where the P_i are diagonal.
        right: B, shape (n, r); None where B = I, which is kept for a small n: A_i is then P_i.
    """

    diagonal: tuple[torch.Tensor, ...]
    left: tuple[torch.Tensor, ...] | None = None
    right: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Shares:
        """The same on a device."""
        left = None if self.left is None else tuple(one.to(device) for one in self.left)
        right = None if self.right is None else self.right.to(device)
        return Shares(tuple(one.to(device) for one in self.diagonal), left, right)

    def seen(self, i: int, delta: torch.Tensor) -> torch.Tensor:
        """Δ A_i: shape (rows, r).

        Args:
            i: which map.
            delta: rows of Δ, shape (rows, n), fp64.
        """
        assert self.left is not None
        return delta @ self.left[i]

    def back(self, seen: torch.Tensor) -> torch.Tensor:
        """`seen` Bᵀ: shape (rows, n)."""
        return seen if self.right is None else seen @ self.right.T


def shares(
    moments: Sequence[Moments | None], weights: Sequence[float], off_diagonal: float, anchor: int | None = None
) -> Shares | None:
    """P_i of maps of one shape.

    Args:
        moments: C_i of each; None for a map that no input has reached.
        weights: w_i of each, above 0.
        off_diagonal: a: what the entries of C_i beside its diagonal are multiplied by, in [0, 1].
        anchor: a map whose A_i is not needed, and is left empty: differences from that map need the others' alone.

    Returns:
        None where no map has seen an input.
    """
    known = [one for one in moments if one is not None and one.trace > 0]
    if not known:
        return None
    size = known[0].size
    ridge = RIDGE * max(one.trace for one in known) / size
    diagonals, low_ranks = zip(*(_parts(one, size, off_diagonal) for one in moments), strict=True)
    diagonals = [one + ridge for one in diagonals]
    rank = sum(one.shape[1] for one in low_ranks)
    if rank == 0:
        whole = sum(w * one for w, one in zip(weights, diagonals, strict=True))
        return Shares(tuple(w * one / whole for w, one in zip(weights, diagonals, strict=True)))
    make = _dense if 2 * rank >= size else _low_rank
    return make(diagonals, low_ranks, weights, anchor)


def _parts(moments: Moments | None, size: int, off_diagonal: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(D, V) of G; fp64."""
    if moments is None or not moments.trace > 0:
        return torch.zeros(size, dtype=torch.float64), torch.zeros(size, 0, dtype=torch.float64)
    values = moments.values.double().clamp(min=0)
    if moments.vectors is None:
        return values, torch.zeros(size, 0, dtype=torch.float64)
    rest = spread(moments)
    above, vectors = (values - rest).clamp(min=0), moments.vectors.double()
    diagonal = rest + vectors.square() @ above
    some = above * off_diagonal > 0
    low_rank = vectors[:, some] * (off_diagonal * above[some]).sqrt()
    return off_diagonal * rest + (1 - off_diagonal) * diagonal, low_rank


_Parts = Sequence[torch.Tensor]


def _dense(diagonals: _Parts, low_ranks: _Parts, weights: Sequence[float], anchor: int | None) -> Shares:
    grams = [w * (torch.diag(d) + v @ v.T) for d, v, w in zip(diagonals, low_ranks, weights, strict=True)]
    factor = torch.linalg.cholesky(torch.stack(grams).sum(0))
    left = [torch.cholesky_solve(gram, factor).T.contiguous() for i, gram in enumerate(grams) if i != anchor]
    if anchor is not None:
        left.insert(anchor, torch.empty(0, 0, dtype=torch.float64))
    return Shares(tuple(torch.zeros_like(d) for d in diagonals), tuple(left))


def _low_rank(diagonals: _Parts, low_ranks: _Parts, weights: Sequence[float], anchor: int | None) -> Shares:
    whole = torch.stack([w * d for w, d in zip(weights, diagonals, strict=True)]).sum(0)
    root = whole.sqrt()[:, None]
    scaled = torch.cat([w**0.5 * v for w, v in zip(weights, low_ranks, strict=True)], dim=1) / root
    size, rank = scaled.shape
    q = torch.linalg.qr(torch.cat([scaled, torch.eye(rank, dtype=torch.float64)]))[0]
    q, inverse = q[:size], q[size:]
    diagonal, left, start = [w * d / whole for w, d in zip(weights, diagonals, strict=True)], [], 0
    for i, (share, v) in enumerate(zip(diagonal, low_ranks, strict=True)):
        stop = start + v.shape[1]
        own = root * (scaled[:, start:stop] @ inverse[start:stop] - share[:, None] * q) if i != anchor else q[:0, :0]
        left.append(own.contiguous())
        start = stop
    return Shares(tuple(diagonal), tuple(left), (q / root).contiguous())


Side = Callable[[tuple[float, ...], float, int], Shares | None]
"""``side(weights, off_diagonal, anchor)``: the shares of one matrix on one of its sides; see `shares`."""


class Sides(NamedTuple):
    """What is known of a tensor that several models have: the inputs of its matrices.

    Args:
        columns: of what the last dimension reads, by matrix of a stack; a single one for a tensor that is no stack.
        rows: of what the second last reads (tokens of an embedding; the inputs of a weight stored as (in, out)). Where both
            are known, as of an embedding that is the head too, `columns` counts.
    """

    columns: tuple[Side, ...] = ()
    rows: tuple[Side, ...] = ()
