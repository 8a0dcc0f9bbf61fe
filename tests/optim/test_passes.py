"""The moments' update alone is the one that torch's AdamW makes, bit for bit, batched or not."""

from __future__ import annotations

import pytest
import torch

from mergetool.ops.threshold import magnitude_threshold, trim
from mergetool.optim import passes
from mergetool.optim.parts import AdamPart, Binding
from mergetool.optim.private_torch import fused_adamw_
from mergetool.optim.sharding import Shard

GROUP = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "density": 0.3}


def some(n: int, dtype: torch.dtype = torch.float32) -> AdamPart:
    rng = torch.Generator().manual_seed(n)
    p = torch.nn.Parameter(torch.zeros(n, dtype=dtype))
    p.grad = torch.randn(n, generator=rng).to(dtype)
    state = {"step": torch.tensor(2.0), "exp_avg": torch.randn(n, generator=rng), "exp_avg_sq": torch.rand(n, generator=rng)}
    return AdamPart.of(p, state, GROUP, Binding("w", Shard((n,), (n,), (0,))))


def test_moments_of_a_batch_are_torchs() -> None:
    parts = [some(n) for n in (1, 1000, 300_007)]
    expected = []
    for part in parts:
        m, v, theta = part.m.clone(), part.v.clone(), torch.zeros_like(part.m)
        fused_adamw_(
            [theta], [part.grad], [m], [v], [], [part.t], lr=0.0, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8,
            amsgrad=False, maximize=False,
        )  # fmt: skip
        expected.append((m, v))
    passes.update_moments(parts, compile=False)
    for part, (m, v) in zip(parts, expected, strict=True):
        assert torch.equal(part.m, m)
        assert torch.equal(part.v, v)


@pytest.mark.slow
def test_a_threshold_found_in_the_pass_is_the_one_that_a_search_finds() -> None:
    part, plain = some(passes.SWEPT + 5), some(passes.SWEPT + 5)
    found = passes.threshold_ahead(part)
    assert found is not None
    passes.update_moments([plain], compile=True)
    k = int(0.3 * part.m.numel())
    searched = magnitude_threshold(lambda a, b: plain.update.block(a, b), plain.m.numel(), k)
    values = plain.update.block(0, plain.m.numel()).clone()
    assert torch.equal(trim(values.clone(), found), trim(values.clone(), searched))
    assert int(trim(values, found).count_nonzero()) == k
    assert passes.threshold_ahead(some(100)) is None


@pytest.mark.slow
def test_an_update_that_is_made_as_it_is_read_is_the_one_of_its_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of one size and of several, over more than one call of the kernel."""
    monkeypatch.setattr(passes, "_AT_ONCE", 5_000)
    n = 12_345
    for blocks in ([(a, min(a + 1_000, n)) for a in range(0, n, 1_000)], [(0, 700), (700, 3_700), (3_700, 9_000), (9_000, n)]):
        part, plain = some(n), some(n)
        delta = passes.UpdateAhead(part)
        found = torch.cat([delta.block(start, stop).clone() for start, stop in blocks])
        passes.update_moments([plain], compile=False)
        for one, other in ((part.m, plain.m), (part.v, plain.v), (found, plain.update.block(0, n))):
            assert (one - other).abs().max() < 1e-6 * other.abs().max()
