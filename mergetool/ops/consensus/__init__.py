"""Consensus ⊕, one file each: how several deltas, or the models themselves, become one.

First a statistic of whole tensors where one is needed (slerp's angle), then the combination of any part of them. A
method's row in `mergetool.methods` names the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import torch

from mergetool.ops.blocks import BLOCK, ReadBlock, spans

Buffer = Callable[[str], torch.Tensor]
"""``buffer(name)``: fp32 of a part's shape to work in, contents undefined; the same name gives the same memory."""


class WholeInputs(NamedTuple):
    """Deltas, or models, as a consensus knows them before their entries come block by block.

    Attributes:
        reads: each gives fp32 blocks of one flat input, sparsified where it is a delta, its rescaling still due; a block is
            valid until the same input is read again. Costs a pass over the inputs.
        numel: entries of each.
        weights: of each.
        scales: the rescaling that is still due for each.
        options: name -> value of each option in the method's row that is not a model's own.
        row: entries that must be read together: `spans` gives ranges that may be read.
        shape: of each input.
        own: for each input, name -> value of the options that it has for itself, `weight` aside.
        known: what a consensus of that kind knows of the inputs beside their entries: of regmean `regression.Sides`.
    """

    reads: Sequence[ReadBlock]
    numel: int
    weights: Sequence[float]
    scales: Sequence[float]
    options: Mapping[str, Any]
    row: int = 1
    shape: tuple[int, ...] = ()
    own: Sequence[Mapping[str, Any]] = ()
    known: Any = None

    def spans(self) -> Iterator[tuple[int, int]]:
        """(start, stop) over all entries, in blocks of whole rows where rows must be read whole."""
        return spans(self.numel, max(BLOCK // self.row, 1) * self.row)


class Consensus:
    """The protocol. A file's `CONSENSUS` is an instance; it holds no state of its own."""

    def statistic(self, inputs: WholeInputs) -> Any:
        """What `combine` has to know: weights as they will be used, and anything of the whole tensors."""
        raise NotImplementedError

    def together(self, shape: Sequence[int]) -> int:
        """Entries of a tensor that `combine` must be given together: a part is a multiple of them, but for the last."""
        return 1

    def share(self, statistic: Any) -> float | None:
        """How far the result goes from the base to the models' mean, where the method finds that out and no option says it."""
        return None

    def at(self, statistic: Any, start: int, stop: int) -> Any:
        """What `combine` has to know for the flat entries [start, stop)."""
        return statistic

    def fixed_factors(self, weights: Sequence[float], options: Mapping[str, Any]) -> list[float] | None:
        """The factor of each input where the result is their sum with these factors; None where it is no such sum."""
        return None

    def combine(self, parts: Sequence[torch.Tensor], statistic: Any, buffer: Buffer) -> torch.Tensor:
        """One part of every input -> that part of the result.

        Args:
            parts: fp32, one shape. Deltas may be overwritten, models not.
            statistic: from `at`.
            buffer: memory to work in.

        Returns:
            fp32, the parts' shape: one of `parts`, or a buffer.
        """
        raise NotImplementedError


@cache
def consensus(name: str) -> Consensus:
    """The consensus of the file `name`.py in this directory."""
    return import_module(f"{__name__}.{name}").CONSENSUS


def normalized(weights: Sequence[float]) -> list[float]:
    """The weights divided by their sum; unchanged where that sum is below 1e-8, as mergekit does."""
    total = math.fsum(weights)
    return [w / total for w in weights] if abs(total) >= 1e-8 else list(weights)


def alone(weights: Sequence[float]) -> int | None:
    """Which input the result is, where one has weight 1 and all others 0; None elsewhere."""
    used = [i for i, weight in enumerate(weights) if weight != 0.0]
    return used[0] if len(used) == 1 and weights[used[0]] == 1.0 else None
