"""Deltas as the optimizers read them: a block at a time, at scattered entries, or the largest of them.

None of them holds a full-size temporary: an Adam step is recomputed from its moments, a Step-K delta from the
parameter and its anchor, and τ_s from two mapped files.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from mergetool.ops.blocks import BLOCK


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

    def above(self, low: float) -> tuple[np.ndarray, np.ndarray]:
        """The entries with |x| > low: (indices int64, values fp32), in index order."""
        indices, values = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for start in range(0, self.numel, BLOCK):
            x = self.block(start, min(start + BLOCK, self.numel)).cpu().numpy()
            index = np.flatnonzero(np.abs(x) > np.float32(low)) if low >= 0 else np.arange(x.size)
            if index.size:
                values.append(x[index])
                indices.append(index + start)
        return np.concatenate(indices), np.concatenate(values)


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
        self.scale = -lr / (1 - betas[0] ** step)
        self.root = math.sqrt(1 - betas[1] ** step)
        self.eps = eps
        super().__init__(
            exp_avg.numel(),
            lambda start, stop: self._of(exp_avg[start:stop], exp_avg_sq[start:stop]),
            lambda index: self._of(exp_avg[index], exp_avg_sq[index]),
            owned=True,
        )

    def _of(self, m: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        denominator = v.float().sqrt().div_(self.root).add_(self.eps)
        return torch.div(m.float(), denominator, out=denominator).mul_(self.scale)

    def above(self, low: float) -> tuple[np.ndarray, np.ndarray]:
        """As `Delta.above`. m² > (low/scale)²·v̂ is necessary (ε only lowers |Δθ|) and costs no root and no quotient."""
        bound = (low / self.scale / self.root) ** 2 * (1 - 1e-5) if low > 0 and self.scale else 0.0
        plain = self.m.device.type != "cpu" or self.m.dtype != torch.float32
        # below this a square might underflow and hide an entry whose √v̂ is far below ε
        if plain or not (bound * self.eps**2 > 1e-36 and bound < 1e30):
            return super().above(low)
        squares, bounds = torch.empty(2 * BLOCK), torch.empty(2 * BLOCK)
        parts = [np.empty(0, np.int64)]
        for start in range(0, self.numel, squares.numel()):
            m, v = self.m[start : start + squares.numel()], self.v[start : start + squares.numel()]
            a, b = squares[: m.numel()], bounds[: m.numel()]
            torch.mul(m, m, out=a)
            torch.mul(v, bound, out=b)
            index = np.flatnonzero(torch.gt(a, b).numpy())
            if index.size:
                parts.append(index + start)
        index = np.concatenate(parts)
        value = self.take(torch.from_numpy(index)).numpy()
        keep = np.abs(value) > np.float32(low)
        return index[keep], value[keep]
