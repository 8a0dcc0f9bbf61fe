"""What the entries that a sparsifier keeps are multiplied by."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from mergetool.ops.blocks import BLOCK, ReadBlock, spans


class Rescale(NamedTuple):
    """A rule.

    Attributes:
        norms: whether it reads the L1 norms before and after, which takes a pass over the tensor.
        factor: density, norm before, norm after -> the factor.
        leaves: density -> the share of a delta that is left in expectation (for the rule by norms, in the L1 norm).
    """

    norms: bool
    factor: Callable[[float, float, float], float]
    leaves: Callable[[float], float]


RESCALES = {
    # DARE, Eq. 4: the expectation is the delta as it was
    "unbiased": Rescale(False, lambda density, *_: 1.0 / density if density > 0 else 1.0, lambda density: 1.0),
    # as mergekit does it
    "l1": Rescale(True, lambda _, a, b: a / b if a >= 1e-7 and b >= 1e-7 else 1.0, lambda density: 1.0),
    "none": Rescale(False, lambda *_: 1.0, lambda density: density),
}


def rescale_factor(rescale: str, density: float, before: float = 0.0, after: float = 0.0) -> float:
    """What survivors are multiplied by.

    Args:
        rescale: ``unbiased``: 1/density (DARE, Eq. 4), so that the expectation is the unsparsified delta; ``l1``:
            ‖x‖₁/‖F(x)‖₁, as mergekit does, 1 where either norm is below 1e-7; ``none``: 1.
        density: the fraction kept.
        before, after: L1 norms of the delta before and after; read by ``l1`` alone.
    """
    return RESCALES[rescale].factor(density, before, after)


def reads_norms(rescale: str) -> bool:
    """True where `rescale_factor` reads the norms."""
    return RESCALES[rescale].norms


def l1_norm(read: ReadBlock, numel: int) -> float:
    """‖x‖₁, summed block by block in index order: fp32 within a block, fp64 between blocks."""
    return math.fsum(float(read(a, b).abs().sum()) for a, b in spans(numel, BLOCK))


def share_left(rescale: str, density: float) -> float:
    """What sparsifying at random leaves of a delta in expectation, as a share of it."""
    return RESCALES[rescale].leaves(density)
