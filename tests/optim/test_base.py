"""How much of τ_s has been merged is counted, and a state's types survive a round trip."""

from __future__ import annotations

import pytest
import torch

from mergetool.optim import MergedAmount, OnDARE, OnTIES
from tests.optim.scenes import deltas, parameters, run


@pytest.mark.parametrize(
    ("cls", "settings", "share"),
    [(OnDARE, {}, 1.0), (OnDARE, {"rescale": "none"}, 0.25), (OnDARE, {"rescale": "l1"}, 1.0), (OnTIES, {}, 1.0)],
)
def test_the_share_is_what_sparsifying_leaves(cls: type, settings: dict, share: float) -> None:
    ours = parameters()
    optimizer = cls(ours, lr=1e-3, density=0.25, alpha=0.1, every=2, reference=deltas(), **settings)
    run(optimizer, ours, 5)
    assert optimizer.merged == pytest.approx(MergedAmount(2, 0.2, 0.2 * share))
    assert optimizer.planned(5) == pytest.approx(optimizer.merged)


def test_merges_are_counted_where_merging_is_adamws_own_step() -> None:
    ours = parameters()
    optimizer = OnDARE(ours, lr=1e-3, density=1.0, every=2)
    run(optimizer, ours, 4)
    assert optimizer.merged.merges == 2
    assert "anchor" not in optimizer.state[ours[0][1]]


def test_a_loaded_state_keeps_the_types_that_it_was_saved_in() -> None:
    ours, again = parameters(dtype=torch.bfloat16), parameters(dtype=torch.bfloat16)
    optimizer = OnDARE(ours, lr=1e-3, density=0.5, every=3, weight_decay=0.1)
    run(optimizer, ours, 1)
    other = OnDARE(again, lr=1e-3, density=0.5, every=3, weight_decay=0.1)
    other.load_state_dict(optimizer.state_dict())
    for (_, p), (_, q) in zip(ours, again, strict=True):
        types = {key: value.dtype for key, value in optimizer.state[p].items()}
        assert {key: value.dtype for key, value in other.state[q].items()} == types
        assert (types["exp_avg"], types["anchor"], types["anchor_decay"]) == (torch.float32, torch.bfloat16, torch.float64)
