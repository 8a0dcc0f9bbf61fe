"""Counter-based randomness: the streams of random words that masks and stochastic rounding are read from.

Every word is a pure function of (seed, step, role, tensor name, flat element index), never of a generator's
state. So a merge gives the same bytes with any thread count, shard size or interruption, and an optimizer keeps the
same entries on one rank or eight, on a CPU or a GPU.

The stream is SplitMix64 read by counter: word i of key k is ``mix(k + (i + 1)·γ)`` (Steele, Lea & Flood 2014,
"Fast splittable pseudorandom number generators"; γ, the shifts and the multipliers are theirs). All arithmetic is on
integers, modulo 2⁶⁴, so that numpy on a CPU and torch on a GPU give the same words.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

import numpy as np
import torch

from mergetool.ops.blocks import scratch

_GAMMA = 0x9E3779B97F4A7C15
_M1 = 0xBF58476D1CE4E5B9
_M2 = 0x94D049BB133111EB
_U64 = (1 << 64) - 1
_RAMP = 1 << 15


def stream_key(seed: int, step: int, role: str, name: str) -> int:
    """The 64-bit key of one tensor's random stream.

    Args:
        seed: the user's seed, any integer.
        step: the optimizer step, 0 for an offline merge.
        role: what the stream is for, e.g. ``"update"``, ``"reference"``, or a model's position in a recipe.
        name: the tensor's name, without wrapper prefixes.
    """
    text = f"{seed}\0{step}\0{role}\0{name}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


@lru_cache(maxsize=1)
def _ramp() -> np.ndarray:
    ramp = np.arange(1, _RAMP + 1, dtype=np.uint64) * np.uint64(_GAMMA)
    ramp.setflags(write=False)
    return ramp


def words(key: int, start: int, count: int) -> np.ndarray:
    """Words [start, start + count) of the stream `key`: uint64, shape (count,)."""
    return _words_into(np.empty(count, np.uint64), key, start)


def words_here(key: int, start: int, count: int) -> np.ndarray:
    """`words` in a buffer of this thread that its next call, or that of `masks.random_mask_here`, overwrites."""
    return _words_into(scratch("words", count, np.uint64), key, start)


def _words_into(out: np.ndarray, key: int, start: int) -> np.ndarray:
    shifts = scratch("shifted words", min(out.size, _RAMP), np.uint64)
    for low in range(0, out.size, _RAMP):
        x = out[low : low + _RAMP]
        shifted = shifts[: x.size]
        np.add(_ramp()[: x.size], np.uint64((key + (start + low) * _GAMMA) & _U64), out=x)
        np.right_shift(x, np.uint64(30), out=shifted)
        np.bitwise_xor(x, shifted, out=x)
        np.multiply(x, np.uint64(_M1), out=x)
        np.right_shift(x, np.uint64(27), out=shifted)
        np.bitwise_xor(x, shifted, out=x)
        np.multiply(x, np.uint64(_M2), out=x)
        np.right_shift(x, np.uint64(31), out=shifted)
        np.bitwise_xor(x, shifted, out=x)
    return out


def signed(value: int) -> int:
    """The int64 of the same 64 bits: torch has no shifts and products of uint64."""
    value &= _U64
    return value - (1 << 64) if value >> 63 else value


def words_on(device: torch.device | str, key: int, start: int, count: int) -> torch.Tensor:
    """`words` computed on `device`: the same bits as int64, shape (count,)."""
    x = torch.arange(start + 1, start + count + 1, dtype=torch.int64, device=device)
    return _mix_(x.mul_(signed(_GAMMA)).add_(signed(key)))


def _mix_(x: torch.Tensor) -> torch.Tensor:
    for shift, multiplier in ((30, _M1), (27, _M2), (31, None)):
        # torch's right shift is arithmetic; the mask makes it logical
        x.bitwise_xor_((x >> shift).bitwise_and_((1 << (64 - shift)) - 1))
        if multiplier is not None:
            x.mul_(signed(multiplier))
    return x


def lanes(key: int, start: int, count: int) -> np.ndarray:
    """Sixteen random bits for each of the elements [start, start + count): uint16, four from a word."""
    first, skip = start // 4, start % 4
    return words(key, first, (start + count + 3) // 4 - first).view(np.uint16)[skip : skip + count]


def lanes_on(device: torch.device | str, key: int, start: int, count: int) -> torch.Tensor:
    """`lanes` computed on `device`: the same numbers as int32."""
    first, skip = start // 4, start % 4
    drawn = words_on(device, key, first, (start + count + 3) // 4 - first).view(torch.int16)
    return drawn[skip : skip + count].int() & 0xFFFF


def words_at(key: int | np.ndarray, index: np.ndarray) -> np.ndarray:
    """Word `index[j]` of the stream for every j, for indices too scattered for `words`: uint64, the shape of both.

    Args:
        key: of the stream, or uint64 and one for each index.
        index: integers, any shape.
    """
    stream = key if isinstance(key, np.ndarray) else np.uint64(key & _U64)
    with np.errstate(over="ignore"):
        x = (index.astype(np.uint64, copy=False) + np.uint64(1)) * np.uint64(_GAMMA) + stream
        for shift, multiplier in ((30, _M1), (27, _M2), (31, None)):
            x ^= x >> np.uint64(shift)
            if multiplier is not None:
                x *= np.uint64(multiplier)
    return x


def words_at_on(key: int | torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`words_at` on the device of `index` (int64): the same bits as int64.

    Args:
        key: of the stream; in a compiled function an int64 tensor of no dimension, so that a new one compiles nothing.
        index: int64, any shape.
    """
    return _mix_((index + 1).mul_(signed(_GAMMA)).add_(key if isinstance(key, torch.Tensor) else signed(key)))


def lanes_at_on(key: int | torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`lanes` of scattered entries, in torch operations alone: int64, `index`'s shape."""
    return (words_at_on(key, index >> 2) >> ((index & 3) << 4)) & 0xFFFF
