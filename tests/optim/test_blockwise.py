"""A rank's box is merged as the whole tensor is, entry by entry, rounding included."""

from __future__ import annotations

import pytest
import torch

from mergetool.optim.blockwise import merge_blocks
from mergetool.optim.deltas import stored
from mergetool.optim.job import Job, Merge
from mergetool.optim.operators import operator
from mergetool.optim.parts import Binding
from mergetool.optim.sharding import Shard

SHAPE = (60, 50)


def merged(shard: Shard, dtype: torch.dtype) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    theta, delta, tau = torch.randn(SHAPE, generator=rng).to(dtype), *(torch.randn(SHAPE, generator=rng) for _ in range(2))
    box = tuple(slice(o, o + e) for o, e in zip(shard.offset, shard.extent, strict=True))
    here = theta[box].flatten().clone()
    merge = Merge(operator("dare"), 0.3, 0.2, "unbiased", "resample", "weighted", None, 5, 2, True)
    binding = Binding("w", shard, stored(tau[box].flatten() * 1e-2, None))
    merge_blocks(Job(here, here, 0.99, stored(delta[box].flatten() * 1e-3, None), merge, binding))
    return here.view(shard.extent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("box", [((13, 50), (40, 0)), ((60, 7), (0, 20)), ((0, 50), (60, 0))])
def test_a_box_is_merged_as_the_whole(box: tuple[tuple[int, ...], tuple[int, ...]], dtype: torch.dtype) -> None:
    whole, (extent, offset) = merged(Shard(SHAPE, SHAPE, (0, 0)), dtype), box
    place = tuple(slice(o, o + e) for o, e in zip(offset, extent, strict=True))
    assert torch.equal(merged(Shard(SHAPE, extent, offset), dtype), whole[place])
