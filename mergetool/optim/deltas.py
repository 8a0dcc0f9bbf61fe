"""Deltas as the optimizers read them: a block at a time, at scattered entries, or the largest of them.

None of them holds a full-size temporary: an Adam step is recomputed from its moments, a Step-K delta from the
parameter and its anchor, and τ_s from two mapped files.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from mergetool.ops.blocks import BLOCK, scratch, spans

_SCANNED = 1 << 16  # entries that are looked through at once: their squares and bounds stay in the cache


def block_size(device: torch.device) -> int:
    """Entries to work on at once: what stays in a CPU's cache, with a few operations of torch's threads on it."""
    return BLOCK if device.type == "cpu" else 1 << 24


def scale_and_floor(lr: float, betas: tuple[float, float], eps: float, step: int) -> tuple[float, float]:
    """(s, f) with Δθ = s·m/(√v + f) = −η·m̂/(√v̂ + ε): the bias corrections in two constants."""
    root = math.sqrt(1 - betas[1] ** step)
    return -lr / (1 - betas[0] ** step) * root, eps * root


class Delta:
    """A flat delta of `numel` entries, in fp32.

    Args:
        numel: entries.
        block: ``block(start, stop)`` gives the entries [start, stop): fp32.
        take: ``take(index)`` gives the entries at `index` (int64, ascending): fp32, newly made.
        owned: True where a block is newly made, so that it may be overwritten.
        operands: ``operands(start, stop)`` gives x and y of x − y as they are stored, y None for zero; the block itself
            where it is None.

    Attributes:
        ranking: what its entries are ranked by where that is not their own magnitude; None where it is.
    """

    ranking: Delta | None = None

    def __init__(
        self,
        numel: int,
        block: Callable[[int, int], torch.Tensor],
        take: Callable[[torch.Tensor], torch.Tensor],
        owned: bool = False,
        operands: Callable[[int, int], tuple[torch.Tensor, torch.Tensor | None]] | None = None,
    ) -> None:
        self.numel = numel
        self.owned = owned
        self.block = block
        self.take = take
        self.operands = operands or (lambda start, stop: (block(start, stop), None))

    def sample(self, pieces: int, width: int) -> np.ndarray:
        """Magnitudes of `pieces` evenly spread runs of `width` entries (of all entries where there are not so many)."""
        if self.numel <= pieces * width:
            starts, width = [0], self.numel
        else:
            starts = [(self.numel - width) * i // (pieces - 1) for i in range(pieces)]
        return np.concatenate([self.block(s, s + width).abs().cpu().numpy() for s in starts])

    def above(self, low: float) -> tuple[np.ndarray, np.ndarray]:
        """The entries with |x| > low, a NaN among them: (indices int64, values fp32), in index order."""

        def found(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            x = self.block(start, stop).cpu().numpy()
            index = np.flatnonzero(~(np.abs(x) <= np.float32(low))) if low >= 0 else np.arange(x.size)
            return index + start, x[index]

        return joined([found(start, stop) for start, stop in spans(self.numel)])


def joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """(indices int64, values fp32) of several parts as one."""
    return (
        np.concatenate([np.empty(0, np.int64), *(index for index, _ in parts)]),
        np.concatenate([np.empty(0, np.float32), *(value for _, value in parts)]),
    )


def padded_flags(count: int) -> np.ndarray:
    """This thread's buffer for `count` flags, with zeros up to a multiple of eight: uint8."""
    flags = scratch("flags", -(-count // 8) * 8, np.uint8)
    flags[count:] = 0
    return flags


def where_set(flags: np.ndarray) -> np.ndarray:
    """Indices of the entries that are not 0, where they are few: int64, ascending.

    Args:
        flags: np.uint8, a multiple of eight of them.
    """
    words = flags.view(np.int64)
    some = torch.ne(torch.from_numpy(words), 0, out=torch.from_numpy(scratch("some", words.size, np.bool_)))
    eights = np.flatnonzero(some.numpy())
    place = np.flatnonzero(words.take(eights).view(np.bool_))  # of truth values, for which numpy is fast
    return eights[place >> 3] * 8 + (place & 7)


def since(theta: torch.Tensor, anchor: torch.Tensor, decay: float) -> Delta:
    """θ − decay·anchor: what the steps since the last merge added, weight decay apart.

    Args:
        theta, anchor: flat, one dtype.
        decay: Π(1 − η·λ) over those steps; 1 without weight decay, and then the difference is exact where the two
            lie within a factor of two (Sterbenz).
    """

    wide = torch.promote_types(theta.dtype, torch.float32)

    def difference(now: torch.Tensor, then: torch.Tensor) -> torch.Tensor:
        then = then.to(wide)
        return (now.to(wide) - (then * decay if decay != 1.0 else then)).float()

    return Delta(
        theta.numel(),
        lambda start, stop: difference(theta[start:stop], anchor[start:stop]),
        lambda index: difference(_at(theta, index), _at(anchor, index)),
        owned=True,
    )


def _pieces(x: torch.Tensor, pieces: int, width: int) -> torch.Tensor:
    """`pieces` evenly spread runs of `width` entries (all of it where there are not so many), as a view."""
    if x.numel() < pieces * width:
        return x
    return x.as_strided((pieces, width), ((x.numel() - width) // (pieces - 1), 1), x.storage_offset())


def _at(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """x[index], which costs three times this where there are few."""
    return x.take(index.to(x.device))


def _sqrt(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """√x rounded correctly, as compiled code has it: torch's own on a CPU is a vector library's, now and then an ulp off."""
    if x.device.type != "cpu":
        return torch.sqrt(x, out=out)
    out = torch.empty_like(x, memory_format=torch.contiguous_format) if out is None else out
    np.sqrt(x.numpy(), out=out.numpy())
    return out


def stored(top: torch.Tensor, bottom: torch.Tensor | None) -> Delta:
    """top − bottom of two tensors in memory or in mapped files (`bottom` None for zero).

    Args:
        top, bottom: flat, of one size; any floating types.
    """
    if bottom is None:
        return Delta(
            top.numel(),
            lambda start, stop: top[start:stop].float(),
            lambda index: _at(top, index).float(),
            operands=lambda start, stop: (top[start:stop], None),
        )
    return Delta(
        top.numel(),
        lambda start, stop: top[start:stop].float() - bottom[start:stop].float(),
        lambda index: _at(top, index).float() - _at(bottom, index).float(),
        owned=True,
        operands=lambda start, stop: (top[start:stop], bottom[start:stop]),
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
        # methods in place of the functions that other deltas are given: they would make cycles, one for each parameter and
        # step, and the collector would walk all of torch to find them
        self.numel, self.owned = exp_avg.numel(), True
        self.m, self.v = exp_avg, exp_avg_sq
        self.scale, self.floor = scale_and_floor(lr, betas, eps, step)

    def take(self, index: torch.Tensor) -> torch.Tensor:
        """As `Delta`'s."""
        return self._of(_at(self.m, index), _at(self.v, index))

    def operands(self, start: int, stop: int) -> tuple[torch.Tensor, None]:
        """As `Delta`'s."""
        return self.block(start, stop), None

    def block(self, start: int, stop: int) -> torch.Tensor:
        """As `Delta`'s; valid until the next call in this thread."""
        here = (
            self.m.device.type == "cpu" and stop - start <= 2 * BLOCK
        )  # rows of a whole matrix product may be more than a block
        out = torch.from_numpy(scratch("adam delta", stop - start, np.float32)) if here else None
        return self._of(self.m[start:stop], self.v[start:stop], out)

    def _of(self, m: torch.Tensor, v: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        floored = _sqrt(v.float(), out).add_(self.floor)
        return torch.div(m.float(), floored, out=floored).mul_(self.scale)

    def sample(self, pieces: int, width: int) -> np.ndarray:
        """As `Delta.sample`, in one reading."""
        return self._of(*(_pieces(x, pieces, width) for x in (self.m, self.v))).abs().flatten().cpu().numpy()

    def sample_ahead(self, grad: torch.Tensor, betas: tuple[float, float], apart: int, most: int) -> np.ndarray:
        """Magnitudes as they will be once `grad` has gone into moments that are the last step's.

        Args:
            grad: flat.
            betas: (β₁, β₂).
            apart: there is a run of 1,024 entries in every 2^apart,
            most: but no more runs than that.
        """
        pieces = min(max(self.numel >> apart, 8), most)
        grad, m, v = (_pieces(x, pieces, 1 << 10).float() for x in (grad, self.m, self.v))
        m = m.lerp(grad, 1 - betas[0])
        return self._of(m, (v * betas[1]).addcmul_(grad, grad, value=1 - betas[1])).abs_().flatten().numpy()

    def square_bound(self, low: float) -> float | None:
        """b such that |Δθ| > low implies m² > b·v (ε only lowers |Δθ|); None where squares might underflow."""
        bound = (low / self.scale) ** 2 * (1 - 1e-5) if low > 0 and self.scale else 0.0
        # below this a square might underflow and hide an entry whose √v is far below ε
        return bound if bound * self.floor**2 > 1e-36 and bound < 1e30 else None

    def above(self, low: float) -> tuple[np.ndarray, np.ndarray]:
        """As `Delta.above`; looks for `square_bound` first, which costs no root and no quotient."""
        square = self.square_bound(low)
        if self.m.device.type != "cpu" or self.m.dtype != torch.float32 or square is None or not self.numel:
            return super().above(low)
        m, v, bound = self.m.numpy(), self.v.numpy(), np.float32(square)

        def candidates(start: int, stop: int) -> np.ndarray:
            n, here, there = stop - start, m[start:stop], v[start:stop]
            squares = np.square(here, out=scratch("square", n, np.float32))
            limit = np.multiply(there, bound, out=scratch("limit", n, np.float32))
            within = np.less_equal(squares, limit, out=scratch("within", n, np.bool_))
            return np.flatnonzero(np.logical_not(within, out=within)) + start

        index = np.concatenate([candidates(start, stop) for start, stop in spans(self.numel, _SCANNED)])
        if index.size > self.numel // 16:  # at the first step every |Δθ| is η, to within a rounding
            return super().above(low)
        return self.among(index, low)

    def among(self, index: np.ndarray, low: float) -> tuple[np.ndarray, np.ndarray]:
        """Those of the entries `index` with |x| > low, a NaN among them: (indices, values)."""
        value = self.take(torch.from_numpy(index)).cpu().numpy()
        keep = ~(np.abs(value) <= np.float32(low))
        return index[keep], value[keep]
