"""The best approximation of a given rank, of a whole matrix or of a product, as two factors of equal norms.

Source: Eckart and Young 1936, The approximation of one matrix by another of lower rank, Psychometrika 1, 211-218.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

_ROWS = 4096


class LowRank(NamedTuple):
    """left·right.

    Attributes:
        left: (rows, rank), fp32.
        right: (rank, columns), fp32.
        kept, total: the squared Frobenius norms of the product, and of what it approximates.
    """

    left: torch.Tensor
    right: torch.Tensor
    kept: float
    total: float


def of_matrix(matrix: torch.Tensor, rank: int) -> LowRank:
    """The best product of a rank, by the eigenvectors of the smaller Gram matrix in fp64.

    The larger side is never factored: a head of 128,000 words costs a Gram matrix of the hidden size.

    Args:
        matrix: fp32, (rows, columns).
        rank: at most; the smaller side bounds it.
    """
    rows, columns = matrix.shape
    tall = rows >= columns
    rank = min(rank, rows, columns)
    gram = torch.zeros(min(rows, columns), min(rows, columns), dtype=torch.float64)
    for start in range(0, max(rows, columns), _ROWS):
        block = (matrix[start : start + _ROWS] if tall else matrix[:, start : start + _ROWS].T).double()
        gram.addmm_(block.T, block)
    values, vectors = torch.linalg.eigh(gram)
    total, values, vectors = float(gram.trace()), values[-rank:].flip(0).clamp_(min=0.0), vectors[:, -rank:].flip(1).float()
    sizes = values.sqrt()  # singular values
    one, other = vectors, (matrix if tall else matrix.T) @ vectors  # columns of norm 1, and of the singular values'
    root = sizes.sqrt().float()
    inverse = torch.where(root > 0, 1.0 / root, torch.zeros_like(root))
    one, other = one * root, other * inverse
    left, right = (other, one.T) if tall else (one, other.T)
    return LowRank(left.contiguous(), right.contiguous(), float(values.sum()), total)


def of_product(left: torch.Tensor, right: torch.Tensor, rank: int) -> LowRank:
    """The best product of a rank for left·right, which is never multiplied out: QR of each, and an SVD of the cores.

    Args:
        left: fp32, (rows, r).
        right: fp32, (r, columns).
        rank: at most.
    """
    ql, rl = torch.linalg.qr(left.double())
    qr, rr = torch.linalg.qr(right.double().T)
    u, s, v = torch.linalg.svd(rl @ rr.T, full_matrices=False)
    rank = min(rank, len(s))
    root = s[:rank].sqrt()
    kept, total = float(s[:rank].square().sum()), float(s.square().sum())
    new_left, new_right = (ql @ u[:, :rank]) * root, (root.view(-1, 1) * v[:rank]) @ qr.T
    return LowRank(new_left.float().contiguous(), new_right.float().contiguous(), kept, total)
