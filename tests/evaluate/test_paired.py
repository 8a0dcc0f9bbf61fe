"""Differences are paired by row and drawn by cluster, as a naive bootstrap draws them; rows needed are Miller's formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mergetool.evaluate.interval import BY_SUMS, STATISTICS
from mergetool.evaluate.paired import (
    DRAWS,
    clusters_of,
    combined,
    difference,
    interpolated,
    least_seen,
    over_draws,
    rows_needed,
    turned,
)  # fmt: skip

RNG = np.random.default_rng(7)
HARD = RNG.normal(size=400)  # what makes a row hard is common to both models
ONE = (HARD + 0.1 * RNG.normal(size=400) + 0.05).tolist()
OTHER = (HARD + 0.1 * RNG.normal(size=400)).tolist()
ONES = [1.0] * 400


@pytest.mark.parametrize("statistic", list(STATISTICS))
def test_a_statistic_of_sums_is_the_statistic_of_the_rows(statistic: str) -> None:
    columns = RNG.normal(size=50) + 3, RNG.uniform(1, 5, size=50)
    by_sums = BY_SUMS[statistic]
    assert by_sums.value(by_sums.of_rows(columns).sum(-1)) == pytest.approx(float(STATISTICS[statistic](*columns)))


def test_equal_differences_of_length_leave_the_mean() -> None:
    by_sums = BY_SUMS["intercept"]
    assert by_sums.value(by_sums.of_rows(([1.0, 2.0, 6.0], [0.1, 0.1, 0.1])).sum(-1)) == pytest.approx(3.0)


def test_the_interval_is_of_the_differences_and_not_of_the_scores() -> None:
    one, other = (over_draws([(values, ONES)]) for values in (ONE, OTHER))
    found = difference(one, other)
    away = np.array(ONE) - np.array(OTHER)
    assert found.mean == pytest.approx(away.mean())
    assert found.se == pytest.approx(away.std(ddof=1) / math.sqrt(400), rel=0.06)
    assert found.low < found.mean < found.high
    assert found.is_clear
    assert found.high - found.low < 0.25 * np.subtract(*np.quantile(one.draws, [0.975, 0.025]))


def test_a_ratio_is_of_sums_in_every_draw() -> None:
    totals, tokens = RNG.uniform(1, 9, size=40), RNG.integers(1, 30, size=40).astype(float)
    drawn = over_draws([(totals.tolist(), tokens.tolist())])
    assert drawn.value == pytest.approx(totals.sum() / tokens.sum())
    naive = RNG.integers(0, 40, (DRAWS, 40))
    expected = totals[naive].sum(1) / tokens[naive].sum(1)
    assert drawn.draws.std() == pytest.approx(expected.std(), rel=0.1)
    assert drawn.draws.mean() == pytest.approx(expected.mean(), rel=0.01)


def test_rows_of_one_prompt_are_one_draw() -> None:
    rows = [{"prompt": f"p{at // 4}"} for at in range(400)]
    clusters = clusters_of(rows)
    assert clusters[:5] == [0, 0, 0, 0, 1]
    values = np.repeat(RNG.normal(size=100), 4).tolist()
    alone, together = over_draws([(values, ONES)]), over_draws([(values, ONES)], clusters=clusters)
    assert together.clusters == 100
    assert together.draws.std() == pytest.approx(2 * alone.draws.std(), rel=0.1)  # a quarter as much evidence


def test_documents_come_before_prompts_and_text_without_either_stands_alone() -> None:
    assert clusters_of([{"prompt": "a", "document": 1}, {"prompt": "b", "document": 1}, {"prompt": "b"}]) == [0, 0, 1]
    assert clusters_of([{"prompt": ""}, {"prompt": ""}]) == [0, 1]


def test_seeds_are_drawn_beside_rows_and_the_same_ones_for_both() -> None:
    apart = [(np.add(OTHER, shift).tolist(), ONES) for shift in (-0.5, 0.0, 0.5)]
    moved = [(np.add(values, 0.1).tolist(), ones) for values, ones in apart]
    one, other = over_draws(apart), over_draws(moved)
    assert one.draws.std() > 3 * one.by_rows.std()
    found = difference(other, one)
    assert (found.mean, found.se) == (pytest.approx(0.1), pytest.approx(0.0, abs=1e-9))
    assert found.seeds == 3


def test_the_same_call_draws_the_same_and_other_data_others() -> None:
    assert (over_draws([(ONE, ONES)], stream="a").draws == over_draws([(ONE, ONES)], stream="a").draws).all()
    assert (over_draws([(ONE, ONES)], stream="a").draws != over_draws([(ONE, ONES)], stream="b").draws).any()


def test_many_rows_are_drawn_some_draws_at_a_time_and_the_same(monkeypatch) -> None:
    whole = over_draws([(ONE, ONES)], stream="chunks")
    monkeypatch.setattr("mergetool.evaluate.paired._AT_ONCE", 400 * 300)
    assert np.allclose(over_draws([(ONE, ONES)], stream="chunks").draws, whole.draws)


def test_a_line_is_read_between_its_points_and_not_beyond() -> None:
    def point(value: float):
        return over_draws([([value] * 10, [1.0] * 10)])

    xs, ys = [point(0.0), point(2.0), point(1.0)], [point(5.0), point(1.0), point(4.0)]
    found = interpolated(point(1.5), xs, ys)
    assert found is not None
    assert found.value == pytest.approx(2.5)
    assert np.allclose(found.draws, 2.5)
    assert interpolated(point(2.1), xs, ys) is None


def test_as_many_rows_as_it_says_tell_the_two_apart() -> None:
    few = difference(over_draws([(ONE[:60], ONES[:60])]), over_draws([(OTHER[:60], ONES[:60])]))
    needed = rows_needed(few)
    away = np.array(ONE[:60]) - np.array(OTHER[:60])
    assert needed == pytest.approx(7.85 * away.var(ddof=1) / away.mean() ** 2, rel=0.12)  # (1.96 + 0.84)² σ² / d²
    assert least_seen(few) == pytest.approx(2.8 * few.se, rel=0.01)


def test_no_number_of_rows_tells_apart_what_seeds_do_not() -> None:
    wide = over_draws([(np.add(OTHER, shift).tolist(), ONES) for shift in (-1.0, 1.3)])
    assert rows_needed(difference(wide, over_draws([(OTHER, ONES)]))) is None
    same = over_draws([(OTHER, ONES)])
    assert rows_needed(difference(same, same)) is None


def test_a_sum_of_scaled_numbers_is_drawn_together_and_a_turned_difference_is_the_other_way_round() -> None:
    one, other = over_draws([(ONE, ONES)]), over_draws([(OTHER, ONES)])
    half = combined([one, other], [0.5, -0.5], shift=1.0)
    assert half.value == pytest.approx(1 + 0.5 * (one.value - other.value))
    found, back = difference(one, other), turned(difference(one, other), -1.0)
    assert (back.mean, back.low, back.high) == (-found.mean, -found.high, -found.low)
