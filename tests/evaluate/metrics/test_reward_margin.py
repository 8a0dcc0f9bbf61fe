"""The margin is in units of beta."""

import pytest

from mergetool.evaluate import Task, measure, prepare, refer
from tests.evaluate import tiny
from tests.evaluate.tiny import PAIRS


def test_beta_scales_the_margin_and_leaves_the_accuracy():
    policy, reference, tokenizer = tiny.llama(1), tiny.llama(2), tiny.tokenizer()
    found = []
    for beta in (0.1, 0.2):
        prepared = prepare(Task("pairs", ("preference_accuracy", "reward_margin"), PAIRS, beta=beta), tokenizer)
        found.append(measure(policy, prepared, tokenizer, refer(reference, prepared, tokenizer)))
    assert found[1]["reward_margin"]["value"] == pytest.approx(2 * found[0]["reward_margin"]["value"])
    assert found[1]["preference_accuracy"]["value"] == found[0]["preference_accuracy"]["value"]
