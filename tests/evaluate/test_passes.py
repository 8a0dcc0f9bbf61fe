"""What several metrics read is made once; what compares with the SFT model needs it."""

from dataclasses import replace

import pytest

from mergetool.errors import RecipeError
from mergetool.evaluate import Task, evaluate, measure, prepare, refer
from tests.evaluate import tiny
from tests.evaluate.tiny import PAIRS


def test_reward_without_a_reference_is_an_error_that_says_what_to_give():
    with pytest.raises(RecipeError, match="SFT model as the reference"):
        evaluate(tiny.llama(), [Task("pairs", ("reward_margin",), PAIRS)], tokenizer=tiny.tokenizer())


def test_a_pass_that_several_metrics_read_is_made_once():
    model, tokenizer = tiny.llama(), tiny.tokenizer()
    names = ("preference_accuracy", "reward_margin", "length_controlled_margin")
    prepared = prepare(Task("pairs", names, PAIRS), tokenizer)
    reference = refer(tiny.llama(2), prepared, tokenizer)
    forwards = []
    model.register_forward_hook(lambda *_: forwards.append(1))
    measure(model, replace(prepared, task=replace(prepared.task, metrics=names[:1])), tokenizer, reference)
    alone = len(forwards)
    measure(model, prepared, tokenizer, reference)
    assert len(forwards) == 2 * alone > 0
