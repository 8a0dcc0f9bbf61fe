"""Sparsifiers F, one file each: first a statistic of the whole delta, then its application to any part of it.

The split is what lets one implementation serve a block of a checkpoint, a rank's shard and a whole parameter: the
statistic (a threshold, a key, a norm) is a few numbers, and the application needs only them and the entries at hand.
A method's row in `mergetool.methods` names the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import torch

from mergetool.ops.blocks import ReadBlock


def row_length(shape: tuple[int, ...]) -> int:
    """Entries in a row of a matrix; all entries of a vector."""
    return math.prod(shape[1:] if len(shape) > 1 else shape)


class WholeDelta(NamedTuple):
    """A delta as a sparsifier knows it before its entries come block by block.

    Attributes:
        read: gives fp32 blocks of the flat delta; NaN does not occur. Costs a pass over the inputs.
        shape: of the tensor; (entries,) where the delta is a model's whole task vector.
        key: of the tensor's random stream, from `mergetool.ops.noise.stream_key`.
        options: name -> value of each option in the method's row.
    """

    read: ReadBlock
    shape: tuple[int, ...]
    key: int
    options: Mapping[str, Any]

    @property
    def numel(self) -> int:
        """Entries."""
        return math.prod(self.shape)

    @property
    def row(self) -> int:
        """Entries in a row."""
        return row_length(self.shape)

    @property
    def density(self) -> float:
        """The fraction to keep."""
        return self.options["density"]


class Sparsifier:
    """The protocol. A file's `SPARSIFIER` is an instance; it holds no state of its own.

    Attributes:
        whole_rows: True where `apply` must be given whole rows.
        rescales: rules of `mergetool.ops.rescale` that `apply` carries out itself, entry by entry.
    """

    whole_rows: bool = False
    rescales: frozenset[str] = frozenset()

    def statistic(self, delta: WholeDelta) -> Any:
        """What `apply` has to know of the whole delta."""
        return None

    def kept(self, delta: WholeDelta) -> int | None:
        """How many entries will be kept, where that is known beforehand."""
        return None

    def apply(self, x: torch.Tensor, statistic: Any, start: int) -> int | None:
        """Zero, in place, the entries that are not kept.

        Args:
            x: fp32, the flat part [start, start + x.numel()) of the delta.
            statistic: from `statistic`.
            start: flat index of the first entry.

        Returns:
            How many of these entries were kept; None to have those counted that are not zero.
        """
        raise NotImplementedError


@cache
def sparsifier(name: str) -> Sparsifier:
    """The sparsifier of the file `name`.py in this directory."""
    return import_module(f"{__name__}.{name}").SPARSIFIER
