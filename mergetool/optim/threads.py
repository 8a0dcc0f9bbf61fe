"""Walking a tensor's blocks on several threads.

Each thread of ours computes alone: torch's own would only contend with it. The blocks are as large as the merge engine's,
and for the same reason: smaller ones spend their time waiting for the interpreter. What is computed in a block does not
depend on which thread computes it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

BLOCK = 1 << 18
"""Elements of a block: 1 MiB of fp32."""

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


def _alone() -> None:
    """This thread's torch operations use no other thread."""
    torch.get_num_threads()  # the first call in a thread takes over the default; only what is said after it stays
    torch.set_num_threads(1)


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    # by process: a fork inherits a pool whose threads are not there
    pool = ThreadPoolExecutor(threads, thread_name_prefix="mergetool", initializer=_alone)
    # every thread of ours computes alone, whatever the size of a block; all of them start here, because torch takes what
    # the last one says for the default of threads yet to come, and that is set right again
    together = threading.Barrier(threads + 1)
    for _ in range(threads):
        pool.submit(together.wait)
    together.wait()
    torch.set_num_threads(threads)
    return pool
