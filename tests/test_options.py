"""An option takes what makes sense and refuses the rest in words."""

from __future__ import annotations

import math

import pytest

from mergetool.options import Number, Option, Truth, Word

SHARE = Number("density", 1.0, low=0.0, high=1.0)
RULE = Word("rescale", "none", words=("unbiased", "l1", "none"), true="l1", false="none")


@pytest.mark.parametrize(
    ("option", "value", "read"),
    [
        (SHARE, 0, 0.0), (SHARE, "0.5", 0.5), (Number("x"), -3, -3.0), (Number("every", low=1, whole=True), 7, 7),
        (Number("clip", low=0.0, above=True, unset=True), None, None), (Truth("normalize"), False, False),
        (RULE, "unbiased", "unbiased"), (RULE, True, "l1"), (RULE, False, "none"), (Option("x"), "anything", "anything"),
    ],
)  # fmt: skip
def test_what_makes_sense_is_read(option: Option, value: object, read: object) -> None:
    got = option.read(value)
    assert got == read
    assert type(got) is type(read)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        (SHARE, 1.01), (SHARE, -1e-9), (SHARE, math.nan), (SHARE, "half"), (SHARE, None), (SHARE, True), (SHARE, [0.5]),
        (Number("x"), math.inf), (Number("p", low=0.0, above=True), 0.0), (Number("every", low=1, whole=True), 2.0),
        (Number("every", low=1, whole=True), 0), (Truth("normalize"), 1), (Truth("normalize"), "yes"), (RULE, "biased"),
        (RULE, 1), (Word("scope", words=("tensor", "model")), True),
    ],
)  # fmt: skip
def test_what_does_not_is_refused(option: Option, value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        option.read(value)


def test_the_words_of_a_refusal_say_what_it_must_be() -> None:
    assert SHARE.must == "a number in [0, 1]"
    assert Number("p", low=0.0, high=1.0, above=True).must == "a number in (0, 1]"
    assert Number("clip", low=0.0, above=True).must == "above 0"
    assert Number("multiple", low=0.0).must == "at least 0"
    assert Number("lambda").must == "a finite number"
    assert RULE.must == "one of unbiased, l1, none, true (l1) or false"
    assert Word("scope", words=("tensor", "model")).must == "tensor or model"
