"""What of a delta is left: P against dense solves, and its limits."""

from __future__ import annotations

import math

import pytest
import torch

from mergetool.ops.projection import Factor, Moments, Rule, covered, factor, shares

N = 24


def second_moment(seed: int = 0, n: int = N, rows: int = 400) -> torch.Tensor:
    """C of inputs whose directions differ in size by a factor of a thousand; fp64."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, n, generator=rng, dtype=torch.float64) * torch.logspace(0, -3, n, dtype=torch.float64)
    x = x @ torch.linalg.qr(torch.randn(n, n, generator=rng, dtype=torch.float64))[0]
    return x.T @ x / rows


def moments(c: torch.Tensor, rank: int) -> Moments:
    e, u = torch.linalg.eigh(c)
    return Moments(e.flip(0)[:rank].float(), u.flip(1)[:, :rank].float(), float(c.diagonal().sum()))


def dense(one: Factor | None, n: int = N) -> torch.Tensor:
    """P itself."""
    if one is None:
        return torch.eye(n, dtype=torch.float64)
    if one.diagonal is not None:
        return torch.diag(one.diagonal.double())
    assert one.low_rank is not None
    return one.left * torch.eye(n, dtype=torch.float64) - one.low_rank.double() @ one.low_rank.double().T


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_soft_minimises_distance_and_change_of_outputs(strength: float) -> None:
    c = second_moment()
    floor = strength * float(c.diagonal().sum()) / N
    delta = torch.randn(5, N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    # the gradient of ℓ‖D − Δ‖² + tr(D C Dᵀ) is zero where D(C + ℓI) = ℓΔ
    best = torch.linalg.solve(c + floor * torch.eye(N, dtype=torch.float64), floor * delta, left=False)
    ours = delta @ dense(factor(moments(c, N), Rule("soft", strength)))
    assert (ours - best).abs().max() < 1e-5 * delta.abs().max()


@pytest.mark.parametrize("rank", [0, 3, 12])
def test_soft_takes_the_rest_of_the_trace_as_spread_evenly(rank: int) -> None:
    known = moments(second_moment(), rank)
    e, u = known.values.double(), (known.vectors if known.vectors is not None else torch.empty(0)).double()
    rest = (known.trace - float(e.sum())) / (N - rank)
    c = u @ torch.diag(e) @ u.T + rest * (torch.eye(N, dtype=torch.float64) - u @ u.T)
    floor = 2.0 * known.trace / N
    p = floor * torch.linalg.inv(c + floor * torch.eye(N, dtype=torch.float64))
    assert (dense(factor(known, Rule("soft", 2.0))) - p).abs().max() < 1e-6


def test_soft_depends_on_the_shape_of_c_alone() -> None:
    c = second_moment()
    one, other = (dense(factor(moments(x, 8), Rule("soft", 3.0))) for x in (c, 1e4 * c))
    assert (one - other).abs().max() < 1e-6


def test_hard_takes_away_the_kept_eigenvectors_and_nothing_else() -> None:
    known = moments(second_moment(), N)
    p = dense(factor(known, Rule("hard", rank=5)))
    assert known.vectors is not None
    assert (p @ known.vectors[:, :5].double()).abs().max() < 1e-6
    assert (p @ known.vectors[:, 5:].double() - known.vectors[:, 5:]).abs().max() < 1e-6
    assert (p @ p - p).abs().max() < 1e-6


def test_hard_counts_by_threshold_energy_and_rank() -> None:
    known = Moments(torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0]), torch.eye(5), 16.0)
    taken = {
        Rule("hard", threshold=0.25): 2,  # 2 is not above a quarter of 8
        Rule("hard", threshold=0.0): 4,  # an eigenvalue of 0 says that no input is there
        Rule("hard", energy=0.75): 2,
        Rule("hard", energy=0.76): 3,
        Rule("hard", rank=1): 1,
        Rule("hard", rank=0): 0,
        Rule("hard", rank=99): 4,
    }
    assert {rule: int(shares(known, rule).sum()) for rule in taken} == taken


def test_a_diagonal_is_scaled_entry_by_entry() -> None:
    known = Moments(torch.tensor([0.0, 3.0, 1.0]), None, 4.0)
    soft = factor(known, Rule("soft", 0.75))  # ℓ = 0.75 · 4 / 3 = 1
    assert soft is not None
    assert torch.allclose(soft.diagonal, torch.tensor([1.0, 0.25, 0.5]))
    hard = factor(known, Rule("hard", rank=1))
    assert hard is not None
    assert torch.equal(hard.diagonal, torch.tensor([1.0, 0.0, 1.0]))


def test_infinite_strength_and_inputs_that_never_came_leave_all() -> None:
    assert factor(moments(second_moment(), 4), Rule("soft", math.inf)) is None
    assert factor(Moments(torch.zeros(3), None, 0.0), Rule("soft", 1.0)) is None
    assert Rule("soft", math.inf).left == 1.0
    assert Rule("soft", 3.0).left == pytest.approx(0.75)


def test_a_hard_rule_that_wants_more_than_was_kept_is_known() -> None:
    known = moments(second_moment(), 4)
    share = float(known.values.sum()) / known.trace
    assert covered(known, Rule("hard", rank=4))
    assert not covered(known, Rule("hard", rank=5))
    assert covered(known, Rule("hard", energy=share - 1e-3))
    assert not covered(known, Rule("hard", energy=share + 1e-3))
    last = float(known.values[-1] / known.values[0])
    assert covered(known, Rule("hard", threshold=last * 1.1))
    assert not covered(known, Rule("hard", threshold=last * 0.9))
    assert covered(known, Rule("soft", 1.0))
