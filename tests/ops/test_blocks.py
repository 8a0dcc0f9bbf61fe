"""Blocks cover a tensor once; a thread's buffer is its own."""

from __future__ import annotations

import threading

import numpy as np
import torch

from mergetool.ops.blocks import BLOCK, reader, scratch, spans


def test_spans_cover_everything_once() -> None:
    for numel in (0, 1, BLOCK, BLOCK + 1, 3 * BLOCK - 1):
        assert [i for a, b in spans(numel) for i in (a, b)][:1] == ([0] if numel else [])
        assert sum(b - a for a, b in spans(numel)) == numel
        assert all(b == c for (_, b), (c, _) in zip(list(spans(numel)), list(spans(numel))[1:], strict=False))


def test_a_reader_gives_fp32_blocks_of_any_layout() -> None:
    x = torch.arange(12, dtype=torch.bfloat16).view(3, 4).t()
    assert reader(x)(2, 5).dtype == torch.float32
    assert reader(x)(0, 12).tolist() == x.flatten().tolist()


def test_a_buffer_is_reused_in_a_thread_and_shared_with_no_other() -> None:
    mine = scratch("test", 10, np.float32)
    assert np.shares_memory(mine, scratch("test", 5, np.float32))
    others: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: others.append(scratch("test", 10, np.float32)))
    thread.start()
    thread.join()
    assert not np.shares_memory(mine, others[0])
