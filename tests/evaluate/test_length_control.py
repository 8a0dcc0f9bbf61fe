"""Theorems of the length-controlled margin: it is the margin of two answers of one length, whatever length is worth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergetool.evaluate import Task, measure, prepare, refer
from mergetool.evaluate.interval import bootstrap, intercept, ratio
from tests.evaluate import tiny

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


def test_pairs_of_one_length_have_their_plain_margin_and_others_the_line():
    policy, sft, tokenizer = tiny.llama(1), tiny.llama(2), tiny.tokenizer()
    equal = [{"prompt": f"q{at:02}", "chosen": f" yes {at:02}", "rejected": f" no! {at:02}"} for at in range(12)]
    mixed = [{**row, "chosen": row["chosen"] + "!" * at} for at, row in enumerate(equal)]
    names = ("reward_margin", "length_controlled_margin")
    for rows, same in ((equal, True), (mixed, False)):
        prepared = prepare(Task("pairs", names, rows), tokenizer)
        found = measure(policy, prepared, tokenizer, refer(sft, prepared, tokenizer))
        plain, controlled = (found[name]["value"] for name in names)
        assert (plain == pytest.approx(controlled, abs=1e-12)) is same
        margins, longer = found["length_controlled_margin"]["rows"]
        assert ratio(margins, [1.0] * len(margins)) == plain
        assert longer == [0.0] * 12 if same else longer == [float(at) for at in range(12)]
