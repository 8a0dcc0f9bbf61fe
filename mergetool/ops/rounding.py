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
from mergetool.ops.noise import words, words_at, words_at_on, words_here, words_on

_TIE = 0x5851F42D4C957F2D  # separates the stream of further bits from the one of lanes
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


def round_at(exact: torch.Tensor, dtype: torch.dtype, key: int, index: torch.Tensor) -> torch.Tensor:
    """Round scattered entries of a tensor stochastically; 53 bits decide each.

    Args:
        exact: fp64, shape (n,): the sums as they would be without rounding.
        dtype: torch.float32, torch.bfloat16 or torch.float16.
        key: from `mergetool.ops.noise.stream_key`, of its own role.
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
        draws = words_at_on(key, index).bitwise_right_shift_(11).bitwise_and_((1 << 53) - 1)
    return torch.where(draws < (probability * (1 << 53)).to(torch.int64), other, near)


def _round_at(exact: np.ndarray, key: int, index: np.ndarray) -> np.ndarray:
    """`round_at` for fp32 on a CPU: a few thousand entries, where a torch operation costs more than its arithmetic."""
    with np.errstate(over="ignore", invalid="ignore"):
        near = exact.astype(np.float32)
        rest = exact - near
        other = np.nextafter(near, np.where(rest > 0, np.float32(np.inf), np.float32(-np.inf)))
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
        key, start: as `round_span`, and the decisions are taken in the same way: 16 bits, then 53 more.
        out: x's dtype, shape (n,); may be `x`; made where it is None.

    Returns:
        `out`. Where x's type holds x + d exactly, it is that.
    """
    if x.dtype not in (torch.float32, torch.bfloat16):
        rounded = round_span(x.double().add_(d), x.dtype, key, start)
        return rounded if out is None else out.copy_(rounded)
    coarse = x.dtype == torch.bfloat16
    on_cpu = x.device.type == "cpu"
    n = x.numel()

    def buffer(what: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        if not on_cpu:
            return torch.empty(n, dtype=dtype, device=x.device)
        return torch.from_numpy(scratch(f"rounding {what}", n, np.float32 if dtype == torch.float32 else np.int32))

    wide = buffer("wide").copy_(x) if coarse else x
    total = torch.add(wide, d, out=buffer("total"))
    rest = torch.sub(total, wide, out=buffer("rest"))
    torch.sub(d, rest, out=rest)
    if coarse:  # a bf16 number is an fp32 number with 16 zero bits
        near = total.view(torch.int32).bitwise_and(-1 << 16).view(torch.float32)
        rest.add_(total.sub_(near))
        total = near
    digits = 7 if coarse else 23
    bits = torch.bitwise_and(total.view(torch.int32), 0x7F800000, out=buffer("binade", torch.int32))
    binade = bits.view(torch.float32)
    torch.copysign(binade, rest, out=binade)
    first, skip = start // 4, start % 4
    n_words = (start + n + 3) // 4 - first
    if on_cpu:
        drawn = torch.from_numpy(words_here(key, first, n_words).view(np.int16))
    else:
        drawn = words_on(x.device, key, first, n_words).view(torch.int16)
    drawn = drawn[skip : skip + n]
    # 65,536·probability + a uniform integer in −32,768…32,767: the move is certain from 32,768, and from 32,767
    # further bits decide, on the probability computed anew (here small ones have lost their digits)
    scale = float(1 << (16 + digits))
    level = buffer("level").copy_(drawn).addcdiv_(rest, binade, value=scale)
    if on_cpu:
        numbers = level.numpy()
        near = np.greater_equal(numbers, np.float32((1 << 15) - 1), out=scratch("rounding near", n, np.bool_))
        near = np.greater(
            near, np.greater_equal(numbers, np.float32(1 << 15), out=scratch("rounding sure", n, np.bool_)), out=near
        )
        ties = np.flatnonzero(near)
        if ties.size:
            exact = rest.numpy()[ties] / binade.numpy()[ties] * np.float64(scale)
            exact += drawn.numpy()[ties] - np.float64((1 << 15) - 1)
            numbers[ties] = np.where(words_at(key ^ _TIE, ties + start) >> np.uint64(11) < exact * (1 << 53), 1 << 15, 0)
    else:
        ties = torch.nonzero((level >= (1 << 15) - 1) & (level < 1 << 15)).flatten()
        exact = (rest[ties] / binade[ties]).double().mul_(scale).add_(drawn[ties]).sub_((1 << 15) - 1)
        further = words_at_on(key ^ _TIE, ties + start).bitwise_right_shift_(11).bitwise_and_((1 << 53) - 1)
        level[ties] = (further.double() < exact * (1 << 53)).float().mul_(1 << 15)
    take = torch.ge(level, 1 << 15, out=level)
    if coarse:
        result = total.addcmul_(binade, take, value=2.0**-digits)
        return result.to(x.dtype) if out is None else out.copy_(result)
    return torch.addcmul(total, binade, take, value=2.0**-digits, out=torch.empty_like(x) if out is None else out)
