"""A range holds its ends; what spans decades has a low above zero; whole steps need whole ends."""

import pytest

from mergetool.study.candidates.ranges import Range, range_of


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"low": 1, "high": 1}, "must be below"),
        ({"low": 0, "high": float("inf")}, "must be below"),
        ({"low": 0, "high": 1, "log": True}, "no logarithm"),
        ({"low": 0, "high": 1, "step": 0}, "must be above 0"),
        ({"low": 1, "high": 9, "step": 2, "log": True}, "exclude each other"),
        ({"low": 0.5, "high": 4, "step": 1}, "whole low and high"),
        ({"low": 0, "heigh": 4}, "'heigh' is no part of a range"),
    ],
)
def test_what_is_no_range_is_said(written, says):
    with pytest.raises(ValueError, match=says):
        range_of(written)


def test_whole_numbers_are_known_by_their_step():
    assert Range(low=1, high=64, step=1, log=True).whole
    assert not Range(low=1, high=64).whole
    assert range_of([0.1, 0.2]) == [0.1, 0.2]
