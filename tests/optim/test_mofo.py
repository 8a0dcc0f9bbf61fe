"""OnTIES that ranks by momentum and merges nothing is MoFO (Chen et al. 2024, arXiv 2407.20999, Algorithm 1)."""

from __future__ import annotations

import copy

import pytest
import torch

from mergetool.errors import RecipeError
from mergetool.optim import OnlineMerge, OnTIES
from mergetool.optim.operators import operator
from mergetool.optim.road import Road, road
from tests.optim.plain import largest, ties
from tests.optim.scenes import deltas, gradients, parameters, run
from tests.optim.test_road import part


def mofo(
    params: list, density: float, steps: int, lr: float, alpha: float = 0.0, tau: dict | None = None
) -> dict[str, torch.Tensor]:
    """The paper's algorithm in fp64: the momentum chooses the entries of a tensor that Adam moves."""
    theta = {n: p.detach().double() for n, p in params}
    m = {n: torch.zeros_like(t) for n, t in theta.items()}
    v = {n: torch.zeros_like(t) for n, t in theta.items()}
    for t in range(1, steps + 1):
        for n, g in gradients(t - 1).items():
            g = g.double()
            m[n], v[n] = 0.9 * m[n] + 0.1 * g, 0.999 * v[n] + 0.001 * g * g
            update = -lr * (m[n] / (1 - 0.9**t)) / ((v[n] / (1 - 0.999**t)).sqrt() + 1e-3)
            kept = update * largest(m[n], density)
            if tau is not None:  # what is left of it is ranked by nothing: every entry of both is given
                chosen = tau[n].double() * largest(tau[n].double(), density)
                kept = ties(kept, chosen, 1.0, alpha, "weighted")
            theta[n] = theta[n] + kept
    return theta


@pytest.mark.parametrize(("alpha", "tau"), [(0.0, None), (0.2, deltas())])
@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
def test_it_is_the_papers_algorithm(density: float, alpha: float, tau: dict | None) -> None:
    ours = parameters()
    expected = mofo(ours, density, 5, 1e-3, alpha, tau)
    optimizer = OnTIES(ours, lr=1e-3, eps=1e-3, density=density, alpha=alpha, reference=tau, statistic="momentum")
    run(optimizer, ours, 5)
    for name, p in ours:
        torch.testing.assert_close(p.detach().double(), expected[name], rtol=0, atol=3e-8)


def test_it_keeps_other_entries_than_the_updates_magnitude_does() -> None:
    ours, plain = parameters(), parameters()
    run(OnTIES(ours, lr=1e-3, density=0.1, statistic="momentum"), ours, 3)
    run(OnTIES(plain, lr=1e-3, density=0.1), plain, 3)
    assert (ours[0][1] != plain[0][1]).float().mean() > 0.05


def test_the_setting_is_in_a_state_where_it_is_not_the_default_alone() -> None:
    ours, plain = parameters(), parameters()
    optimizer, other = OnTIES(ours, density=0.1, statistic="momentum"), OnTIES(plain, density=0.1)
    assert set(optimizer.param_groups[0]) - set(other.param_groups[0]) == {"statistic"}
    run(optimizer, ours, 2)
    run(other, plain, 2)
    first, second = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(other.state_dict())
    optimizer.load_state_dict(second)
    other.load_state_dict(first)
    assert "statistic" not in optimizer.param_groups[0]
    assert other.param_groups[0]["statistic"] == "momentum"


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"statistic": "momentum", "every": 2}, "every is 2"), ({"statistic": "momentun"}, "did you mean 'momentum'")],
)
def test_what_makes_no_sense_is_refused(settings: dict, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        OnTIES(parameters(), **settings)
    with pytest.raises(RecipeError, match="no setting 'statistic'"):  # another optimizer may have no momentum
        OnlineMerge(torch.optim.SGD(parameters(), lr=1.0), method="ties", statistic="momentum")


def test_no_kernel_is_taken_that_sees_the_update_alone() -> None:
    group = OnTIES(parameters(), density=0.5, statistic="momentum").param_groups[0]
    assert road(operator("ties"), group, part(group), due=True, compiles=True) is Road.BLOCKS
    group = OnTIES(parameters(), density=0.5).param_groups[0]
    assert road(operator("ties"), group, part(group), due=True, compiles=True) is Road.ONE_PASS
