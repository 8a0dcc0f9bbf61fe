"""Walking a large tensor in blocks.

An fp32 temporary of a whole tensor costs more in page faults than in arithmetic; a block in a reused buffer costs
neither. It is large enough for the arithmetic to outweigh the calls: at a quarter of it, two threads spent more time
waiting for Python than computing. The block size is a constant of the program, not of the machine: sums are taken
block by block in index order, so every result is the same for any number of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

BLOCK = 1 << 18
"""Elements in a block: 1 MiB of fp32."""

ReadBlock = Callable[[int, int], torch.Tensor]
"""``read(start, stop)`` gives the flat elements [start, stop) as fp32, shape (stop − start,).

The tensor returned may be a reused buffer: it is valid until the next call.
"""


_own = threading.local()


def scratch(what: str, count: int, dtype: Any) -> np.ndarray:
    """This thread's buffer for `what`, reused by every call with that name: shape (count,), contents undefined.

    An array of some hundred kB that is made anew costs a mapping, its page faults and, at its end, an interruption of
    every other thread.
    """
    held = getattr(_own, what, None)
    if held is None or held.size < count:
        held = np.empty(max(count, BLOCK), dtype)
        setattr(_own, what, held)
    return held[:count]


def spans(numel: int, block: int = BLOCK) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) over ``numel`` flat elements, ``block`` at a time; the last may be shorter."""
    for start in range(0, numel, block):
        yield start, min(start + block, numel)


def reader(tensor: torch.Tensor) -> ReadBlock:
    """A ReadBlock over a tensor that is in memory; converts to fp32 a block at a time.

    Args:
        tensor: any shape and floating dtype; a view is taken where it is contiguous, else one copy is made.
    """
    flat = tensor.detach().reshape(-1)
    return lambda start, stop: flat[start:stop].float()
