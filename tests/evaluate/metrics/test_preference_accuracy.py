"""The SFT model ties with itself."""

from mergetool.evaluate import Task, measure, prepare, refer
from tests.evaluate import tiny
from tests.evaluate.tiny import PAIRS


def test_the_reference_scores_exactly_one_half_against_itself():
    model, tokenizer = tiny.llama(), tiny.tokenizer()
    prepared = prepare(Task("pairs", ("preference_accuracy", "reward_margin"), PAIRS), tokenizer)
    found = measure(model, prepared, tokenizer, refer(model, prepared, tokenizer))
    assert found["preference_accuracy"]["value"] == 0.5
    assert found["reward_margin"]["value"] == 0.0
