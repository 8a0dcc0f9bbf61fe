"""Statistics over rows: theorems of the intercept, and intervals that repeat under their seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergetool.evaluate.interval import bootstrap, intercept, ratio


def test_the_interval_holds_the_value_and_repeats_under_its_seed():
    top, bottom = [float(at % 3 == 0) for at in range(200)], [1.0] * 200
    low, high = bootstrap((top, bottom), seed=4)
    assert low < ratio(top, bottom) < high
    assert high - low == pytest.approx(2 * 1.96 * (1 / 3 * 2 / 3 / 200) ** 0.5, rel=0.15)
    assert bootstrap((top, bottom), seed=4) == (low, high)


numbers = st.floats(-5, 5, allow_nan=False)


lengths = st.integers(-20, 20)


@given(st.lists(numbers, min_size=1, max_size=30))
def test_without_differences_of_length_it_is_the_mean(margins):
    assert intercept(margins, [0.0] * len(margins)) == pytest.approx(np.mean(margins))


@given(st.lists(st.tuples(numbers, lengths), min_size=2, max_size=30))
def test_it_is_the_intercept_of_the_least_squares_line(rows):
    margins, differences = np.array(rows).T
    if len(set(differences)) == 1:
        assert intercept(margins, differences) == pytest.approx(margins.mean())
    else:
        assert intercept(margins, differences) == pytest.approx(np.polyfit(differences, margins, 1)[1], abs=1e-8)


@given(st.lists(lengths, min_size=2, max_size=30, unique=True), numbers, numbers)
def test_a_margin_made_of_length_alone_gives_nothing_and_a_constant_beside_it_is_found(differences, slope, constant):
    made = [constant + slope * difference for difference in differences]
    assert intercept(made, differences) == pytest.approx(constant, abs=1e-8)


@given(st.lists(numbers, min_size=2, max_size=12))
def test_where_length_says_nothing_it_is_the_plain_margin(margins):
    """Each margin appears once with a longer and once with a shorter chosen side: uncorrelated, so the mean."""
    both, differences = margins + margins, [7.0] * len(margins) + [-7.0] * len(margins)
    assert intercept(both, differences) == pytest.approx(np.mean(margins), abs=1e-9)


def test_a_bootstrap_of_many_draws_is_that_of_each_draw_alone():
    generator = np.random.default_rng(1)
    margins, differences = generator.normal(size=40), generator.integers(-5, 6, 40)
    low, high = bootstrap((margins, differences), seed=3, statistic=intercept, resamples=50)
    drawn = np.random.default_rng(3).integers(0, 40, (50, 40))
    alone = [intercept(margins[one], differences[one]) for one in drawn]
    assert (low, high) == pytest.approx(tuple(np.quantile(alone, [0.025, 0.975])))
    assert low < intercept(margins, differences) < high
