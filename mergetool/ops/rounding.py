"""Stochastic rounding: an addition far below half a unit in the last place is not lost in expectation.

A number x between two neighbours a < b of the target type becomes b with probability (x − a)/(b − a), else a, so
that its expectation is x. At α = 1e-7 one merge adds 1e-10 to a weight of 0.02, whose neighbour in fp32 is 2e-9 away
and in bf16 1e-4: rounded to nearest, no number of merges would ever move it.

The decisions are read by counter from `mergetool.ops.noise`, so they depend on (key, flat index) alone.

Source: Gupta et al. 2015, *Deep Learning with Limited Numerical Precision*, arXiv 1502.02551, §3.
"""

from __future__ import annotations

import numpy as np
import torch

from mergetool.ops.blocks import scratch
from mergetool.ops.noise import lanes_at_on, lanes_on, signed, words, words_at, words_at_on, words_here, words_on

_TIE = 0x5851F42D4C957F2D  # separates the stream of further bits from the one of lanes
_FLIP = 0x7FFF  # so that a lane read as a signed number and added decides as the lane itself compared does
_EXPONENT = 0x7F800000
_INTEGER = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


def neighbour(near: torch.Tensor, upward: torch.Tensor) -> torch.Tensor:
    """The next number of `near`'s type, above where `upward`, else below.

    Args:
        near: fp32, bf16 or fp16, finite.
        upward: torch.bool, the same shape.

    Returns:
        `near`'s dtype and shape; ±inf beyond the largest finite number.
    """
    integer = _INTEGER[near.dtype]
    bits = near.view(integer)
    # IEEE numbers of one sign are ordered as their bits are: away from zero is +1, toward it −1
    away = upward == (near > 0)
    moved = bits + away.to(integer).mul_(2).sub_(1)
    zero = near == 0
    if zero.any():
        smallest = torch.where(upward, 1, 1 + torch.iinfo(integer).min).to(integer)
        moved = torch.where(zero, smallest, moved)
    return moved.view(near.dtype)


def _split(exact: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(nearest, its neighbour beyond `exact`, the probability in [0, 1/2] that the neighbour is taken)."""
    near = exact.to(dtype)
    rest = exact - near.double()
    other = neighbour(near, rest > 0)
    gap = (other.double() - near.double()).abs_()
    # inf and NaN stay as they are: their rest is NaN or their gap is infinite
    return near, other, rest.abs_().div_(gap).nan_to_num_(0.0, 0.0, 0.0)


def round_at(exact: torch.Tensor, dtype: torch.dtype, key: int | np.ndarray, index: torch.Tensor) -> torch.Tensor:
    """Round scattered entries of a tensor, or of several, stochastically; 53 bits decide each.

    Args:
        exact: fp64, shape (n,): the sums as they would be without rounding.
        dtype: torch.float32, torch.bfloat16 or torch.float16.
        key: from `mergetool.ops.noise.stream_key`, of its own role; uint64, shape (n,), for entries of several tensors.
        index: int64, shape (n,): the entries' flat indices in the whole tensor.

    Returns:
        `dtype`, shape (n,). Numbers that `dtype` holds exactly, infinities and NaN come back unchanged.
    """
    if index.device.type == "cpu" and dtype == torch.float32:
        return torch.from_numpy(_round_at(exact.numpy(), key, index.numpy()))
    near, other, probability = _split(exact, dtype)
    if index.device.type == "cpu":
        draws = torch.from_numpy((words_at(key, index.numpy()) >> np.uint64(11)).view(np.int64))
    else:
        stream = torch.from_numpy(key.view(np.int64)).to(index.device) if isinstance(key, np.ndarray) else key
        draws = words_at_on(stream, index).bitwise_right_shift_(11).bitwise_and_((1 << 53) - 1)
    return torch.where(draws < (probability * (1 << 53)).to(torch.int64), other, near)


def _round_at(exact: np.ndarray, key: int | np.ndarray, index: np.ndarray) -> np.ndarray:
    """`round_at` for fp32 on a CPU: a few thousand entries, where a torch operation costs more than its arithmetic."""
    with np.errstate(over="ignore", invalid="ignore"):
        near = exact.astype(np.float32)
        rest = exact - near
        # numpy's nextafter costs five times this; away from zero is +1 on the bits, toward it −1
        away = np.equal(rest > 0, near > 0)
        other = (near.view(np.int32) + (away.astype(np.int32) * 2 - 1)).view(np.float32)
        zero = near == 0
        if zero.any():
            other[zero] = np.nextafter(near[zero], np.sign(rest[zero]).astype(np.float32))
        probability = np.abs(rest) / np.abs(other.astype(np.float64) - near)
        take = (words_at(key, index) >> np.uint64(11)).astype(np.float64) < np.floor(probability * (1 << 53))
    return np.where(take, other, near)


def round_span(exact: torch.Tensor, dtype: torch.dtype, key: int, start: int) -> torch.Tensor:
    """Round a contiguous part of a tensor stochastically.

    Sixteen bits decide an entry; where they equal the threshold (one entry in 65,536) 53 further bits decide, so that
    probabilities far below 2⁻¹⁶ are still exact, at a quarter of the words.

    Args:
        exact: fp64, flat part [start, start + n) of the tensor.
        dtype, key: as `round_at`; the two draw from different streams.
        start: flat index of the first entry.

    Returns:
        `dtype`, shape (n,).
    """
    near, other, probability = _split(exact, dtype)
    first, skip, count = start // 4, start % 4, exact.numel()
    n_words = (start + count + 3) // 4 - first
    if exact.device.type == "cpu":
        drawn = torch.from_numpy(words(key, first, n_words).view(np.int16))
    else:
        drawn = words_on(exact.device, key, first, n_words).view(torch.int16)
    drawn = drawn[skip : skip + count].int().bitwise_and_(0xFFFF)
    scaled = probability.mul_(1 << 16)
    whole = scaled.int()
    take = drawn < whole
    ties = torch.nonzero((drawn == whole) & (scaled > whole)).flatten()
    if ties.numel():
        if exact.device.type == "cpu":
            further = torch.from_numpy((words_at(key ^ _TIE, ties.numpy() + start) >> np.uint64(11)).view(np.int64))
        else:
            further = words_at_on(key ^ _TIE, ties + start).bitwise_right_shift_(11).bitwise_and_((1 << 53) - 1)
        take[ties] = further < ((scaled[ties] - whole[ties]) * (1 << 53)).to(torch.int64)
    return torch.where(take, other, near)


def add_rounded(x: torch.Tensor, d: torch.Tensor, key: int, start: int, out: torch.Tensor | None = None) -> torch.Tensor:
    """x + d, rounded stochastically to x's type: as `round_span`, without a detour through fp64.

    The sum is s + r with s in fp32 and r the error of that addition (Dekker 1971), so d far below half an ulp of x is
    still there, in r. A move is one unit in the last place of s, away from zero or toward it. (Just below a power of
    two, where the spacing is half of that, it is two steps; the expectation is the same.)

    Args:
        x: fp32, bf16 or fp16; flat part [start, start + n) of the tensor.
        d: fp32, shape (n,).
        key, start: as `round_span`; 16 bits decide an entry, and 32 more where they are too few.
        out: x's dtype, shape (n,); may be `x`; made where it is None.

    Returns:
        `out`. Where x's type holds x + d exactly, it is that. The same numbers as `add_rounded_at`.
    """
    if x.dtype not in (torch.float32, torch.bfloat16):
        rounded = round_span(x.double().add_(d), x.dtype, key, start)
        return rounded if out is None else out.copy_(rounded)
    n = x.numel()
    if x.device.type != "cpu":
        index = torch.arange(start, start + n, device=x.device)
        rounded = _rounded(x, d, lanes_on(x.device, key, start, n) ^ _FLIP, words_at_on(key ^ _TIE, index))
        return rounded if out is None else out.copy_(rounded)

    def buffer(what: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.from_numpy(scratch(f"rounding {what}", n, np.float32 if dtype == torch.float32 else np.int32))

    coarse = x.dtype == torch.bfloat16
    wide = buffer("wide").copy_(x) if coarse else x
    total = torch.add(wide, d, out=buffer("total"))
    rest = torch.sub(total, wide, out=buffer("rest"))
    torch.sub(d, rest, out=rest)
    if coarse:  # a bf16 number is an fp32 number with 16 zero bits
        near = total.view(torch.int32).bitwise_and(-1 << 16).view(torch.float32)
        rest.add_(total.sub_(near))
        total = near
    digits = 7 if coarse else 23
    bits = torch.bitwise_and(total.view(torch.int32), _EXPONENT, out=buffer("binade", torch.int32))
    binade = bits.view(torch.float32)
    torch.copysign(binade, rest, out=binade)
    first, skip = start // 4, start % 4
    drawn = torch.from_numpy(words_here(key, first, (start + n + 3) // 4 - first).view(np.int16))[skip : skip + n]
    # 65,536·probability + a uniform integer in −32,768…32,767: the move is certain from 32,768, and near that further
    # bits decide (here small probabilities have lost their digits)
    level = buffer("level").copy_(drawn).addcdiv_(rest, binade, value=float(1 << (16 + digits)))
    numbers = level.numpy()
    close = np.greater_equal(numbers, np.float32((1 << 15) - 2), out=scratch("rounding close", n, np.bool_))
    sure = np.greater(numbers, np.float32((1 << 15) + 1), out=scratch("rounding sure", n, np.bool_))
    at = torch.from_numpy(np.flatnonzero(np.greater(close, sure, out=close)))
    unsure = add_rounded_at(x[at], d[at], key, at + start) if at.numel() else None
    take = torch.ge(level, 1 << 15, out=level)
    result = total.addcmul_(binade, take, value=2.0**-digits)
    out = torch.empty_like(x) if out is None else out
    out.copy_(result)
    if unsure is not None:
        out[at] = unsure
    return out


def add_rounded_at(x: torch.Tensor, d: torch.Tensor, key: int | torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`add_rounded` of any entries, as one elementwise function: for torch.compile.

    Args:
        x: fp32 or bf16, any entries of the tensor.
        d: fp32, x's shape.
        key: of the stream; in a compiled function an int64 tensor of no dimension.
        index: int64, the entries' flat indices in the whole tensor.

    Returns:
        x's dtype and shape; newly made.
    """
    tie = key ^ signed(_TIE) if isinstance(key, torch.Tensor) else key ^ _TIE
    return _rounded(x, d, lanes_at_on(key, index) ^ _FLIP, words_at_on(tie, index))


def _rounded(x: torch.Tensor, d: torch.Tensor, lane: torch.Tensor, further: torch.Tensor) -> torch.Tensor:
    """x + d where a uniform number of 48 bits, `lane` and the upper half of `further`, decides each entry."""
    coarse = x.dtype == torch.bfloat16
    wide = x.float()
    total = wide + d
    rest = d - (total - wide)
    if coarse:
        near = (total.view(torch.int32) & (-1 << 16)).view(torch.float32)
        rest, total = rest + (total - near), near
    gap = (total.view(torch.int32) & _EXPONENT).view(torch.float32) * 2.0 ** -(7 if coarse else 23)
    uniform = lane.float() * 2.0**-16 + ((further >> 32) & 0xFFFFFFFF).float() * 2.0**-48
    return torch.where(uniform * gap < rest.abs(), total + torch.copysign(gap, rest), total).to(x.dtype)
