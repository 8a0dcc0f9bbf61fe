"""Samples that are all the same have little that is distinct; a seeded model has the same diversity again."""

import pytest

from mergetool.evaluate import Task, evaluate
from mergetool.evaluate.metrics.sample_diversity import SAMPLES, distinct
from tests.evaluate import tiny


def test_distinct_is_the_mean_of_distinct_1_2_and_3_over_all_samples():
    assert distinct(["a b c", "a b c"]) == pytest.approx(0.5)
    assert distinct(["a b c", "d e f"]) == 1
    assert distinct(["a a a"]) == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)
    assert distinct(["", ""]) == 1


def test_a_model_is_sampled_several_times_and_the_same_again():
    model, tokenizer = tiny.llama(3), tiny.tokenizer()
    task = Task("chat", ("sample_diversity",), [{"prompt": "ab"}, {"prompt": "c"}], max_new_tokens=24)
    first, second = (evaluate(model, [task], tokenizer=tokenizer)["chat.sample_diversity"] for _ in range(2))
    assert first["value"] == second["value"]
    assert 0 < first["value"] <= 1
    assert SAMPLES > 1
