"""A rank's decisions are the whole tensor's decisions for the entries it holds, whatever box of it that is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mergetool.ops import masks, noise
from mergetool.optim import OnDARE
from mergetool.optim.sharding import Shard, kept_of

KEY = noise.stream_key(1, 2, "0", "w")
WHOLE = (40, 30, 11)
BOXES = [
    Shard(WHOLE, WHOLE, (0, 0, 0)),
    Shard(WHOLE, (13, 30, 11), (27, 0, 0)),
    Shard(WHOLE, (40, 7, 11), (0, 20, 0)),
    Shard(WHOLE, (40, 30, 4), (0, 0, 7)),
    Shard(WHOLE, (5, 6, 7), (10, 11, 2)),
    Shard(WHOLE, (0, 30, 11), (40, 0, 0)),
    Shard((), (), ()),
]


def part(x: torch.Tensor, box: Shard) -> torch.Tensor:
    slices = tuple(slice(o, o + e) for o, e in zip(box.offset, box.extent, strict=True))
    return x[slices].flatten()


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("density", [0.02, 0.3])
def test_masks_of_a_box_are_the_masks_of_the_whole(box: Shard, density: float) -> None:
    mask = masks.random_mask(KEY, density, 0, box.numel).view(box.shape)
    if box.held:
        got = box.mask(KEY, density, 0, box.held, torch.device("cpu"))
        assert torch.equal(got, part(mask, box))
    sparse = torch.zeros(box.numel, dtype=torch.bool)
    sparse[masks.kept_indices(KEY, 0.02, 0, box.numel)] = True
    kept = torch.zeros(box.held, dtype=torch.bool)
    kept[kept_of([box], [KEY], 0.02)[0]] = True
    assert torch.equal(kept, part(sparse.view(box.shape), box))


@pytest.mark.parametrize("box", BOXES[:5])
def test_spans_and_indices_lead_to_the_same_places(box: Shard) -> None:
    places = part(torch.arange(box.numel).view(box.shape), box).numpy()
    assert np.array_equal(box.to_global(np.arange(box.held)), places)
    walked = np.concatenate([np.arange(at, at + b - a) for a, b, at in box.spans(3, box.held)])
    assert np.array_equal(walked, places[3:])


def test_one_thread_and_two_give_the_same_bits() -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            p = torch.nn.Parameter(torch.linspace(-1, 1, 300_000))
            tau = {"w": torch.linspace(1e-3, -1e-3, 300_000)}
            optimizer = OnDARE([("w", p)], lr=1e-4, density=0.3, alpha=1e-6, reference=tau)
            for step in range(3):
                p.grad = torch.sin(p.detach() * 50 + step)
                optimizer.step()
            results.append(p.detach().clone())
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
