"""The largest eigenpairs of a second moment."""

from __future__ import annotations

import torch

EXACT = 3072
"""Up to this size LAPACK decomposes all of it; beyond, its time and memory go to eigenpairs that nobody keeps."""
_MORE, _ROUNDS, _SETTLED = 32, 60, 1e-7


def top_eigenpairs(c: torch.Tensor, rank: int, energy: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The fewest eigenpairs that hold `energy` of the trace, at most `rank` of them.

    Args:
        c: symmetric, positive semidefinite, shape (n, n); fp64.
        rank: the most to keep.
        energy: the share of tr(C) to keep, in (0, 1].

    Returns:
        (e, U): eigenvalues, descending, shape (r,), and orthonormal columns, shape (n, r); fp64. The largest entry of each
        column is positive.
    """
    values, vectors = _exact(c) if c.shape[0] <= EXACT else _iterated(c, min(rank, c.shape[0]))
    return _cut(values, vectors, float(c.diagonal().sum()), rank, energy)


def _exact(c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values, vectors = torch.linalg.eigh(c)
    return values.flip(0), vectors.flip(1)


def _iterated(c: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Subspace iteration with Rayleigh–Ritz, from the same random start every time."""
    size = min(c.shape[0], rank + _MORE)
    start = torch.randn(c.shape[0], size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis, before = torch.linalg.qr(start.to(c.device))[0], None
    for _ in range(_ROUNDS):
        image = c @ basis
        values, turn = torch.linalg.eigh(basis.T @ image)
        if before is not None and float((values - before).abs()[-rank:].sum()) <= _SETTLED * float(values.sum()):
            break
        before = values
        basis = torch.linalg.qr(image)[0]
    return values.flip(0)[:rank], (basis @ turn).flip(1)[:, :rank]


def _cut(
    values: torch.Tensor, vectors: torch.Tensor, trace: float, rank: int, energy: float
) -> tuple[torch.Tensor, torch.Tensor]:
    values = values.clamp(min=0)
    wanted = int(torch.searchsorted(torch.cumsum(values, 0), energy * trace * (1 - 1e-12))) + 1
    # beyond the rank of C itself there are rounding errors alone
    kept = min(rank, wanted, int((values > 1e-14 * values[:1]).sum()))
    values, vectors = values[:kept], vectors[:, :kept]
    peak = vectors.abs().argmax(0, keepdim=True)
    return values, vectors * vectors.gather(0, peak).sign()
