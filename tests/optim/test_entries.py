"""A merge by its kept entries alone is the merge that walks the whole tensor, wherever the same entries are kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mergetool.methods import ONLINE
from mergetool.optim.blockwise import merge_blocks
from mergetool.optim.deltas import stored
from mergetool.optim.entries import merge_entries
from mergetool.optim.job import Job, Merge
from mergetool.optim.operators import operator
from mergetool.optim.parts import Binding
from mergetool.optim.sharding import Shard

N = 50_000


def job(method: str, dtype: torch.dtype = torch.float32, step_k: bool = False, **given: Any) -> Job:
    rng = torch.Generator().manual_seed(0)
    origin = torch.randn(N, generator=rng).to(dtype)
    delta, tau = (torch.randn(N, generator=rng) * size for size in (1e-3, 1e-2))
    settings = ONLINE[method].settings | {"density": 0.01, "alpha": 0.2, **given}
    keys = ("density", "alpha", "rescale", "tau_mask", "elect", "clip", "seed")
    merge = Merge(operator(method), *(settings[key] for key in keys), number=4, stochastic=False)
    binding = Binding("w", Shard((N,), (N,), (0,)), stored(tau, None))
    theta = torch.full_like(origin, 7.0) if step_k else origin
    return Job(theta, origin, 0.9 if step_k else 1.0, stored(delta, None), merge, binding)


@pytest.mark.parametrize(
    "given", [{}, {"rescale": "l1"}, {"elect": "unweighted"}, {"clip": 5e-3}, {"alpha": 0.0}, {"step_k": True}]
)
def test_onties_by_entries_is_onties_block_by_block(given: dict[str, Any]) -> None:
    sparse, dense = job("ties", **given), job("ties", **given)
    merge_entries([sparse])
    merge_blocks(dense)
    torch.testing.assert_close(sparse.theta, dense.theta, rtol=1e-6, atol=1e-7)
    moved = sparse.theta != job("ties").origin * sparse.decay
    assert 400 < int(moved.sum()) <= 1000


def test_what_is_kept_of_a_fixed_reference_is_remembered_and_drawn_anew_otherwise() -> None:
    fixed, anew = job("dare", tau_mask="fixed"), job("dare")
    for one in (fixed, anew):
        merge_entries([one])
    assert len(fixed.binding.fixed) == 1
    assert not anew.binding.fixed


def test_onties_needs_no_second_search_for_the_references_largest() -> None:
    one = job("ties")
    merge_entries([one])
    kept = next(iter(one.binding.fixed.values()))
    assert kept.index.numel() == int(0.01 * N)
