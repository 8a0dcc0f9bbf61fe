"""The share of prompts whose answer follows all that its row names."""

from mergetool.evaluate.metrics.instruction_following import followed
from tests.evaluate.metrics.answers import Answers


def test_a_prompt_counts_where_all_its_instructions_are_followed():
    row = {"prompt": "p", "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"], "kwargs": [{}, {}]}
    assert followed(Answers(["one two", "One two", "one, two"], [row] * 3)).columns[0] == [1.0, 0.0, 0.0]
