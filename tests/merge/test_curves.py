"""A decay curve's shares are those of the schedule that it stands for."""

from __future__ import annotations

import pytest

from mergetool.errors import RecipeError
from mergetool.merge.curves import CURVES, shares


@pytest.mark.parametrize("curve", CURVES)
def test_the_shares_scale_each_update_as_the_curve_does(curve: str) -> None:
    """Σ c_j θ_j = θ_0 + Σ w_j (θ_j − θ_{j−1}) for any walk θ."""
    walk = [0.3, -1.0, 2.5, 2.0, 7.0]
    soup = sum(share * theta for share, theta in zip(shares(curve, 5), walk, strict=True))
    decayed = walk[0] + sum(CURVES[curve](j / 5) * (walk[j] - walk[j - 1]) for j in range(1, 5))
    assert soup == pytest.approx(decayed, abs=1e-12)
    assert sum(shares(curve, 5)) == pytest.approx(1)


def test_linear_decay_is_the_mean_and_1_sqrt_counts_the_early_ones_more() -> None:
    assert shares("sma", 4) == pytest.approx([0.25] * 4)
    early = shares("1-sqrt", 4)
    assert early == sorted(early, reverse=True)


def test_ema_is_the_recursion() -> None:
    walk = [0.3, -1.0, 2.5, 2.0]
    mean = walk[0]
    for theta in walk[1:]:
        mean += 0.2 * (theta - mean)
    assert sum(share * theta for share, theta in zip(shares("ema", 4, 0.2), walk, strict=True)) == pytest.approx(mean)
    assert shares("ema", 3, 1.0) == [0, 0, 1]


@pytest.mark.parametrize(("curve", "coefficient", "says"), [
    ("emma", None, "did you mean 'ema'"), ("ema", None, "coefficient"), ("cosine", 0.5, "has none"), ("ema", 2.0, "up to 1"),
])  # fmt: skip
def test_what_makes_no_sense_is_one_line(curve: str, coefficient: float | None, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        shares(curve, 3, coefficient)
