"""Deltas as the optimizers read them: a block at a time, at scattered entries, or the largest of them.

None of them holds a full-size temporary: an Adam step is recomputed from its moments, a Step-K delta from the
parameter and its anchor, and τ_s from two mapped files.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from mergetool.ops.blocks import BLOCK, scratch
from mergetool.optim.threads import each_block

_SCANNED = 1 << 16  # entries that are looked through at once: their squares and bounds stay in the cache


class Delta:
    """A flat delta of `numel` entries, in fp32.

    Args:
        numel: entries.
        block: ``block(start, stop)`` gives the entries [start, stop): fp32.
        take: ``take(index)`` gives the entries at `index` (int64, ascending): fp32, newly made.
        owned: True where a block is newly made, so that it may be overwritten.
    """

    def __init__(
        self,
        numel: int,
        block: Callable[[int, int], torch.Tensor],
        take: Callable[[torch.Tensor], torch.Tensor],
        owned: bool = False,
    ) -> None:
        self.numel = numel
        self.owned = owned
        self.block = block
        self.take = take

    def sample(self, pieces: int, width: int) -> np.ndarray:
        """Magnitudes of `pieces` evenly spread runs of `width` entries (of all entries where there are not so many)."""
        if self.numel <= pieces * width:
            starts, width = [0], self.numel
        else:
            starts = [(self.numel - width) * i // (pieces - 1) for i in range(pieces)]
        return np.concatenate([self.block(s, s + width).abs().cpu().numpy() for s in starts])

    def above(self, low: float) -> tuple[np.ndarray, np.ndarray]:
        """The entries with |x| > low: (indices int64, values fp32), in index order."""

        def found(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            x = self.block(start, stop).cpu().numpy()
            index = np.flatnonzero(np.abs(x) > np.float32(low)) if low >= 0 else np.arange(x.size)
            return index + start, x[index]

        parts = each_block(self.numel, found)
        return (
            np.concatenate([np.empty(0, np.int64), *(index for index, _ in parts)]),
            np.concatenate([np.empty(0, np.float32), *(value for _, value in parts)]),
        )


def since(theta: torch.Tensor, anchor: torch.Tensor, decay: float) -> Delta:
    """θ − decay·anchor: what the steps since the last merge added, weight decay apart.

    Args:
        theta, anchor: flat, one dtype.
        decay: Π(1 − η·λ) over those steps; 1 without weight decay, and then the difference is exact where the two
            lie within a factor of two (Sterbenz).
    """

    def difference(now: torch.Tensor, then: torch.Tensor) -> torch.Tensor:
        return now.float() - (then.float() * decay if decay != 1.0 else then.float())

    return Delta(
        theta.numel(),
        lambda start, stop: difference(theta[start:stop], anchor[start:stop]),
        lambda index: difference(theta[index], anchor[index]),
        owned=True,
    )


class AdamDelta(Delta):
    """Δθ = −η·m̂/(√v̂ + ε), computed from the moments wherever it is asked for.

    Args:
        exp_avg, exp_avg_sq: m and v after this step's update; flat.
        step: t, from 1.
        lr, betas, eps: η, (β₁, β₂), ε.
    """

    def __init__(
        self,
        exp_avg: torch.Tensor,
        exp_avg_sq: torch.Tensor,
        step: int,
        lr: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        self.m, self.v = exp_avg, exp_avg_sq
        # −η·m̂/(√v̂ + ε) = scale·m/(√v + floor), with the bias corrections in the two constants
        root = math.sqrt(1 - betas[1] ** step)
        self.scale = -lr / (1 - betas[0] ** step) * root
        self.floor = eps * root
        super().__init__(
            exp_avg.numel(),
            self._block,
            lambda index: self._of(exp_avg[index], exp_avg_sq[index]),
            owned=True,
        )

    def _block(self, start: int, stop: int) -> torch.Tensor:
        """Valid until the next call in this thread."""
        here = self.m.device.type == "cpu" and stop - start <= BLOCK
        out = torch.from_numpy(scratch("adam delta", stop - start, np.float32)) if here else None
        return self._of(self.m[start:stop], self.v[start:stop], out)

    def _of(self, m: torch.Tensor, v: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        floored = torch.sqrt(v.float(), out=out).add_(self.floor)
        return torch.div(m.float(), floored, out=floored).mul_(self.scale)

    def sample(self, pieces: int, width: int) -> np.ndarray:
        """As `Delta.sample`, in one reading."""
        if self.numel < pieces * width:
            return super().sample(pieces, width)
        apart = (self.numel - width) // (pieces - 1)
        m, v = (x.as_strided((pieces, width), (apart, 1)) for x in (self.m, self.v))
        return self._of(m, v).abs().flatten().cpu().numpy()

    def above(self, low: float) -> tuple[np.ndarray, np.ndarray]:
        """As `Delta.above`. m² > (low/scale)²·v is necessary (ε only lowers |Δθ|) and costs no root and no quotient."""
        bound = (low / self.scale) ** 2 * (1 - 1e-5) if low > 0 and self.scale else 0.0
        plain = self.m.device.type != "cpu" or self.m.dtype != torch.float32
        # below this a square might underflow and hide an entry whose √v is far below ε
        if plain or not (bound * self.floor**2 > 1e-36 and bound < 1e30):
            return super().above(low)
        m, v, bound = self.m.numpy(), self.v.numpy(), np.float32(bound)

        def candidates(start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            n, here, there = stop - start, m[start:stop], v[start:stop]
            square = np.square(here, out=scratch("square", n, np.float32))
            limit = np.multiply(there, bound, out=scratch("limit", n, np.float32))
            index = np.flatnonzero(np.greater(square, limit, out=scratch("above", n, np.bool_)))
            return index + start, here[index], there[index]  # while the block is in the cache

        if not self.numel:
            return super().above(low)
        parts = each_block(self.numel, candidates, block=_SCANNED)
        index, first, second = (np.concatenate(column) for column in zip(*parts, strict=True))
        if index.size > self.numel // 16:  # at the first step every |Δθ| is η, to within a rounding
            return super().above(low)
        value = self._of(torch.from_numpy(first), torch.from_numpy(second)).numpy()
        keep = np.abs(value) > np.float32(low)
        return index[keep], value[keep]
