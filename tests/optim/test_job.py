"""The protocol is wide enough for an operator that needs whole rows: Δ·P, a projection that acts on columns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mergetool import methods
from mergetool.optim import OnlineMerge, base
from mergetool.optim.adamw import MergingAdamW
from mergetool.optim.deltas import Delta
from mergetool.optim.job import Merge, Operator
from mergetool.optim.sharding import Shard

WIDTH = 600
BASIS = torch.linalg.qr(torch.randn(WIDTH, 7, generator=torch.Generator().manual_seed(0)))[0]


class Project(Operator):
    """F(Δ) = Δ − Δ·U·Uᵀ."""

    name = "project"
    whole_rows = True

    def is_the_step(self, group: dict[str, Any]) -> bool:
        return False

    def sparsified(
        self, delta: Delta, statistic: None, key: int, merge: Merge, shard: Shard, start: int, stop: int
    ) -> torch.Tensor:
        assert start % WIDTH == 0
        rows = delta.block(start, stop).view(-1, WIDTH)
        return (rows - rows @ BASIS @ BASIS.T).flatten()

    def combine(self, merge: Merge, delta: torch.Tensor, tau: torch.Tensor | None, scales: tuple[float, float]) -> torch.Tensor:
        assert tau is None
        return delta


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    row = methods.Online("project", "OnProject", "onproject", defaults={"density": 1.0, "rescale": "none"})
    monkeypatch.setitem(methods.ONLINE, "project", row)
    monkeypatch.setattr(base, "operator", lambda name: Project())


def step(optimizer: torch.optim.Optimizer, p: torch.Tensor, steps: int) -> None:
    for i in range(steps):
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
        optimizer.step()


@pytest.mark.parametrize("every", [1, 3])
def test_its_steps_leave_the_kept_span_alone_and_are_adamws_elsewhere(project: None, every: int) -> None:
    start = torch.randn(900, WIDTH, generator=torch.Generator().manual_seed(1)) * 0.02  # more than one block
    ours, plain = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    given = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "moments": "float32", "compile": False}
    step(MergingAdamW("project", [("w", ours)], None, None, every=every, **given), ours, 3)
    step(torch.optim.AdamW([plain], lr=1e-3, weight_decay=0.0), plain, 3)
    moved, adamw = (ours.detach() - start).double(), (plain.detach() - start).double()
    basis = BASIS.double()
    assert (moved @ basis).abs().max() < 1e-4 * (adamw @ basis).abs().max()
    torch.testing.assert_close(moved, adamw - adamw @ basis @ basis.T, rtol=1e-3, atol=1e-7)


def test_around_another_optimizer_it_is_the_same_projection(project: None) -> None:
    ours = torch.nn.Parameter(torch.zeros(5, WIDTH))
    step(OnlineMerge(torch.optim.SGD([("w", ours)], lr=0.1), method="project"), ours, 1)
    gradient = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours.detach(), -0.1 * (gradient - gradient @ BASIS @ BASIS.T), rtol=1e-4, atol=1e-6)
