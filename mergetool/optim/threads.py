"""Walking a tensor's blocks on several threads.

torch runs an operation on fewer than 32,768 entries on the calling thread, and numpy always does: so blocks of that
size, handed to as many threads as torch would use, neither compete with torch's own threads nor leave the cache.
What is computed in a block does not depend on which thread computes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

BLOCK = (1 << 15) - 64
"""Elements of a block; below torch's own grain."""

T = TypeVar("T")


def each_block(numel: int, work: Callable[[int, int], T], device: torch.device | None = None) -> list[T]:
    """``[work(start, stop) for every block]``, in order; on a CPU by several threads.

    Args:
        numel: entries to walk.
        work: takes [start, stop); must not depend on other blocks having been done.
        device: where the work's tensors are; other devices than a CPU take larger blocks, on this thread.
    """
    if device is not None and device.type != "cpu":
        block = 1 << 24
        return [work(start, min(start + block, numel)) for start in range(0, numel, block)]
    starts = range(0, numel, BLOCK)
    threads = torch.get_num_threads()
    if threads == 1 or len(starts) < 4:
        return [work(start, min(start + BLOCK, numel)) for start in starts]
    share = -(-len(starts) // (4 * threads))

    def run(first: int) -> list[T]:
        with torch.no_grad():
            return [work(start, min(start + BLOCK, numel)) for start in starts[first : first + share]]

    parts = _pool(threads, os.getpid()).map(run, range(0, len(starts), share))
    return [result for part in parts for result in part]


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    # by process: a fork inherits a pool whose threads are not there
    return ThreadPoolExecutor(threads, thread_name_prefix="mergetool")
