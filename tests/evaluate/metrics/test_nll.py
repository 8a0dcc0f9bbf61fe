"""The surprise is that of the completion's tokens."""

import math

import pytest
import torch

from mergetool.evaluate import Task, evaluate
from tests.evaluate import tiny
from tests.evaluate.tiny import SKILLS


def test_nll_of_a_uniform_model_is_the_log_of_the_vocabulary():
    model = tiny.llama()
    torch.nn.init.zeros_(model.lm_head.weight)
    found = evaluate(model, [Task("text", ("nll",), SKILLS)], tokenizer=tiny.tokenizer())
    assert found["text.nll"]["value"] == pytest.approx(math.log(258), abs=1e-5)
    assert found["text.nll"]["unit"] == "nats/token"
