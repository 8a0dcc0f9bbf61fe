"""Refusals of harmful prompts are counted; of harmless ones too, where fewer are better."""

from mergetool.evaluate import METRICS
from mergetool.evaluate.metrics.refusal import refusals
from tests.evaluate.metrics.answers import Answers


def test_the_value_is_the_share_of_answers_that_refuse():
    columns = refusals(Answers(["I can't help with that.", "Sure: take a bowl.", "I cannot assist you."])).columns
    assert columns == ([1.0, 0.0, 1.0], [1.0, 1.0, 1.0])
    assert METRICS["refusal"].higher_is_better
