"""seq-rep-4: the share of runs of four words that were there before."""

import pytest

from mergetool.evaluate.metrics.repetition import repeated, repetitions
from tests.evaluate.metrics.answers import Answers


@pytest.mark.parametrize(
    ("text", "share"),
    [("a b c d e", 0), ("a a a a a a", 2 / 3), ("a b c", 0), ("", 0), ("a b c d a b c d", 1 - 4 / 5)],
)
def test_the_share_is_that_of_repeated_runs(text: str, share: float):
    assert repeated(text) == pytest.approx(share)


def test_each_answer_has_its_own():
    assert repetitions(Answers(["a a a a a a", "a b c d e"])).columns[0] == [pytest.approx(2 / 3), 0.0]
