"""The mean number of words."""

from mergetool.evaluate.metrics.answer_words import words
from tests.evaluate.metrics.answers import Answers


def test_words_stand_between_spaces():
    assert words(Answers(["one two  three", "", "one\ntwo"])).columns[0] == [3.0, 0.0, 2.0]
