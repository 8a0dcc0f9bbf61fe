"""Walking a tensor's blocks on several threads.

torch runs an operation on fewer than 32,768 entries on the calling thread, and numpy always does: so blocks of that
size, handed to as many threads as torch would use, neither compete with torch's own threads nor leave the cache.
What is computed in a block does not depend on which thread computes it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

BLOCK = (1 << 15) - 64
"""Elements of a block; below torch's own grain."""

S, T = TypeVar("S"), TypeVar("T")
_here = threading.local()


def each_block(numel: int, work: Callable[[int, int], T], device: torch.device | None = None, block: int = BLOCK) -> list[T]:
    """``[work(start, stop) for every block]``, in order; on a CPU by several threads.

    Args:
        numel: entries to walk.
        work: takes [start, stop); must not depend on other blocks having been done.
        device: where the work's tensors are; other devices than a CPU take larger blocks, on this thread.
        block: elements of a block on a CPU; larger ones only where the work is numpy's alone.
    """
    if device is not None and device.type != "cpu":
        block = 1 << 24
        return [work(start, min(start + block, numel)) for start in range(0, numel, block)]
    starts = range(0, numel, block)
    if len(starts) < 4:
        return [work(start, min(start + block, numel)) for start in starts]
    share = -(-len(starts) // (4 * torch.get_num_threads()))

    def run(first: int) -> list[T]:
        return [work(start, min(start + block, numel)) for start in starts[first : first + share]]

    return [result for part in each(range(0, len(starts), share), run) for result in part]


def each(items: Iterable[S], work: Callable[[S], T]) -> list[T]:
    """``[work(item) for item in items]``, in order, by as many threads as torch would use; not nested."""
    threads = torch.get_num_threads()
    if threads == 1 or getattr(_here, "working", False):
        return [work(item) for item in items]

    def run(item: S) -> T:
        _here.working = True  # what is called here walks its own blocks alone: the pool's threads are all taken
        with torch.no_grad():
            return work(item)

    return list(_pool(threads, os.getpid()).map(run, items))


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    # by process: a fork inherits a pool whose threads are not there
    return ThreadPoolExecutor(threads, thread_name_prefix="mergetool")
