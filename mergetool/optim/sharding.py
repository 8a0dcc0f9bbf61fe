"""Which entries of a tensor this rank holds, and random decisions that do not depend on it.

A rank asks the same counter-based streams for its own flat indices, and sums over a whole tensor are exchanged as a few
numbers, so that one rank and eight keep the same entries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from mergetool.errors import RecipeError
from mergetool.ops.blocks import BLOCK
from mergetool.ops.masks import kept_indices_of, random_mask, random_mask_here


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds of `tensor`, as a flat view (the tensor itself, flattened, where it is not sharded).

    Raises:
        RecipeError: the memory is not contiguous, so that a flat view would be a copy.
    """
    held = tensor.detach()
    held = getattr(held, "_local_tensor", held)
    if not held.is_contiguous():
        raise RecipeError(
            f"a parameter of shape {tuple(tensor.shape)} is not contiguous", "call .contiguous() on it before training"
        )
    return held.view(-1)


@dataclass(frozen=True)
class Shard:
    """A rank's part of a tensor: a box at `offset` of size `extent` in a tensor of size `shape`.

    `groups` are the process groups over which the parts of all ranks add up to the tensor, none where it is whole.
    """

    shape: tuple[int, ...]
    extent: tuple[int, ...]
    offset: tuple[int, ...]
    groups: tuple[Any, ...] = ()

    @property
    def numel(self) -> int:
        """Entries of the whole tensor."""
        return math.prod(self.shape)

    @property
    def held(self) -> int:
        """Entries of this rank's part."""
        return math.prod(self.extent)

    @property
    def _run(self) -> int:
        """Entries that are neighbours both here and in the whole tensor."""
        run = 1
        for size, extent in zip(reversed(self.shape), reversed(self.extent), strict=True):
            run *= extent
            if extent != size:
                break
        return max(run, 1)

    @property
    def in_one_run(self) -> bool:
        """True where local neighbours are neighbours in the whole tensor too: FSDP2's rows, or the tensor itself."""
        return self._run >= self.held

    @property
    def first(self) -> int:
        """Flat index in the whole tensor of the first entry held."""
        return int(self.to_global(np.array([0]))[0]) if self.held else 0

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(local start, local stop, flat index in the whole tensor of the first) for the local range [start, stop)."""
        run = self._run
        while start < stop:
            end = min(stop, (start // run + 1) * run)
            yield start, end, int(self.to_global(np.array([start]))[0])
            start = end

    def to_global(self, index: np.ndarray) -> np.ndarray:
        """Local flat indices → flat indices in the whole tensor."""
        if not self.shape or self.extent == self.shape:
            return index
        place = [c + o for c, o in zip(np.unravel_index(index, self.extent), self.offset, strict=True)]
        return np.ravel_multi_index(place, self.shape)

    def mask(self, key: int, density: float, start: int, stop: int, device: torch.device) -> torch.Tensor:
        """The dense sampler's decisions for the local range [start, stop): torch.int8, 0 or 1; valid until the next call."""
        spans = list(self.spans(start, stop))
        if len(spans) == 1 and device.type == "cpu":
            return torch.from_numpy(random_mask_here(key, density, spans[0][2], stop - start).view(np.int8))
        parts = [random_mask(key, density, at, b - a, device) for a, b, at in spans]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(torch.int8)

    @property
    def reach(self) -> tuple[int, int]:
        """(first, count) of the run of the whole tensor that holds all of this part."""
        if not self.held:
            return 0, 0
        ends = self.to_global(np.array([0, self.held - 1]))
        return int(ends[0]), int(ends[1] - ends[0]) + 1

    def to_local(self, index: np.ndarray) -> np.ndarray:
        """Indices into `reach` → local flat indices of those that are held."""
        if self.in_one_run:
            return index
        place = np.unravel_index(index + self.reach[0], self.shape)
        place = [c - o for c, o in zip(place, self.offset, strict=True)]
        inside = np.logical_and.reduce([(c >= 0) & (c < e) for c, e in zip(place, self.extent, strict=True)])
        return np.ravel_multi_index([c[inside] for c in place], self.extent)

    def total(self, values: list[float]) -> list[float]:
        """Sums over all ranks; each rank adds in the same order, so all get the same floats."""
        for group in self.groups:
            values = [math.fsum(column) for column in zip(*_gather(values, group), strict=True)]
        return values

    def collect(self, part: np.ndarray) -> np.ndarray:
        """The ranks' arrays, one after the other; their lengths may differ."""
        for group in self.groups:
            part = np.concatenate(_gather(part, group))
        return part


def _gather(value: Any, group: Any) -> list[Any]:
    out: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(out, value, group=group)
    return out


def shard_of(parameter: torch.Tensor) -> Shard:
    """How `parameter` is sharded: DTensor under FSDP2 or tensor parallelism, else whole.

    Raises:
        RecipeError: a placement whose parts are not boxes of the tensor.
    """
    shape = tuple(parameter.shape)
    if not hasattr(parameter, "placements"):
        return Shard(shape, shape, (0,) * len(shape))
    from torch.distributed.tensor import DTensor, Replicate
    from torch.distributed.tensor import Shard as ShardPlacement
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    assert isinstance(parameter, DTensor)  # nothing else has placements
    mesh, placements = parameter.device_mesh, parameter.placements
    for placement in placements:
        if type(placement) not in (ShardPlacement, Replicate):
            raise RecipeError(
                f"a parameter of shape {shape} has placement {placement}",
                "online merging serves Shard and Replicate, one Shard for each dimension of the tensor",
            )
    extent, offset = compute_local_shape_and_global_offset(parameter.shape, mesh, placements)
    groups = tuple(mesh.get_group(i) for i, p in enumerate(placements) if isinstance(p, ShardPlacement) and mesh.size(i) > 1)
    return Shard(shape, tuple(extent), tuple(offset), groups)


def blocks_of(shard: Shard) -> Iterator[tuple[int, int]]:
    """(start, stop) over the local part, a block at a time."""
    for start in range(0, shard.held, BLOCK):
        yield start, min(start + BLOCK, shard.held)


def kept_of(shards: Sequence[Shard], keys: Sequence[int], density: float) -> list[torch.Tensor]:
    """The sparse sampler's decisions for each shard: local flat indices, int64, ascending, on the CPU."""
    parts = [(key, *shard.reach) for shard, key in zip(shards, keys, strict=True)]
    found = kept_indices_of(parts, density)
    return [torch.from_numpy(shard.to_local(index)) for shard, index in zip(shards, found, strict=True)]
