"""Blocks of the inputs as fp32, in buffers that are reused: what one thread reads for all recipes in one reading."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mergetool.checkpoint.reader import Reader
from mergetool.errors import CheckpointError
from mergetool.merge.plan import Source, Term
from mergetool.ops.blocks import BLOCK, ReadBlock


class Inputs:
    """The models of a merge, read block by block. One for each thread.

    Args:
        sources: of the plans.
        readers: one for each source.
        device: where the arithmetic happens.
        allow_nonfinite: let NaN and Inf pass.
    """

    def __init__(self, sources: Sequence[Source], readers: Sequence[Reader], device: str, allow_nonfinite: bool) -> None:
        self.sources, self.readers, self.allow_nonfinite = sources, readers, allow_nonfinite
        self.device = torch.device(device)
        self.block = BLOCK if self.device.type == "cpu" else BLOCK << 4  # a GPU wants larger bites than a cache
        self._buffers: dict[Any, torch.Tensor] = {}

    def step(self, row: int) -> int:
        """Elements of a block of whole rows of `row` elements."""
        return max(self.block // row, 1) * row

    def buffer(self, what: Any, n: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Memory for `what`, contents undefined; the next call with the same `what` gives it again."""
        held = self._buffers.get(what)
        if held is None or held.numel() < n:
            held = self._buffers[what] = torch.empty(max(n, self.block), dtype=dtype, device=self.device)
        return held[:n]

    def load(self, name: str, source: int, start: int, stop: int) -> torch.Tensor:
        """Flat elements of one source as fp32, valid until the next block of that source."""
        stored = self.sources[source].stored_name(name)
        return self.buffer(("loaded", source), stop - start).copy_(self.readers[source].block(stored, start, stop))

    def delta_reader(self, name: str, term: Term) -> ReadBlock:
        """A tensor's delta, model − origin, for a sparsifier's statistic: without NaN."""
        origin = origin_of(term)

        def read(start: int, stop: int) -> torch.Tensor:
            blocks = {i: self.load(name, i, start, stop) for i in (term.source, origin)}
            delta = torch.sub(blocks[term.source], blocks[origin], out=self.buffer(("read", term.role), stop - start))
            if not math.isfinite(float(delta.sum())):
                self.check_finite(name, blocks)
                # where they are let pass: a NaN is in no order, so it counts as the largest, and stays a NaN where it is kept
                delta.nan_to_num_(nan=math.inf, posinf=math.inf, neginf=-math.inf)
            return delta

        return read

    def check_finite(self, name: str, blocks: Mapping[int, torch.Tensor]) -> None:
        """Called where a sum over entries is NaN or Inf: it is wherever an entry is, at a fortieth of the price.

        Raises:
            CheckpointError: an entry is NaN or Inf, and they are not let pass.
        """
        for source, block in () if self.allow_nonfinite else blocks.items():
            if not bool(block.isfinite().all()):
                kind = "NaN" if bool(block.isnan().any()) else "Inf"
                raise CheckpointError(
                    f"{self.sources[source].name}: tensor '{name}' holds {kind}",
                    "use another checkpoint, or pass --allow-nonfinite",
                )


def origin_of(term: Term) -> int:
    """The source that a delta starts from."""
    assert term.origin is not None  # a delta always starts somewhere
    return term.origin
