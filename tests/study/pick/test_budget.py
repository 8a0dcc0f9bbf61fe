"""Rows are as many as fit into the time; everything is measured where everything fits."""

from __future__ import annotations

import pytest

from mergetool.errors import RecipeError
from mergetool.study.pick.budget import LAST, LEAST, plan_for, seconds_of


def test_times_are_written_as_people_write_them() -> None:
    assert [seconds_of(text) for text in ("90", "90s", "10m", "1.5h")] == [90, 90, 600, 5400]
    for text in ("", "ten", "0m", "-3s"):
        with pytest.raises(RecipeError, match="is no time"):
            seconds_of(text)


def test_where_everything_fits_nothing_is_dropped() -> None:
    plan = plan_for(600, 100, inputs=2, candidates=10, put=0.1, row=0.01)
    assert (plan.rows, plan.rungs, plan.last) == (100, [], 10)


def test_less_time_means_fewer_rows_and_the_plan_fits() -> None:
    plans = [plan_for(seconds, 400, inputs=2, candidates=14, put=1.0, row=0.3) for seconds in (2000, 600, 300)]
    assert [plan.rows for plan in plans] == sorted((plan.rows for plan in plans), reverse=True)
    for plan, seconds in zip(plans, (2000, 600, 300), strict=True):
        assert plan.seconds <= seconds
        assert plan.rungs == sorted(plan.rungs)
        assert plan.rungs[0] >= LEAST or plan.rows < LEAST
        assert plan.last >= LAST


def test_a_budget_that_nothing_fits_into_still_measures_the_least() -> None:
    assert plan_for(1, 400, inputs=2, candidates=14, put=1.0, row=1.0).rows == LEAST
