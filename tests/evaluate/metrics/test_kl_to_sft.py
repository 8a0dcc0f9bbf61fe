"""The SFT model is at no distance from itself, others are above."""

import pytest

from mergetool.errors import CheckpointError, RecipeError
from mergetool.evaluate import Task, evaluate, measure, prepare, refer
from mergetool.evaluate.divergence import completion_divergence
from tests.evaluate import tiny

ROWS = [{"prompt": "p" * n, "completion": "word " * (n + 1)} for n in range(7)]


def test_the_sft_model_is_at_zero_and_others_above():
    sft, tokenizer = tiny.llama(2), tiny.tokenizer()
    task = Task("text", ("kl_to_sft", "nll"), ROWS)
    for model, zero in ((sft, True), (tiny.llama(1), False)):
        found = evaluate(model, [task], sft, tokenizer)["text.kl_to_sft"]
        assert (found["value"] == 0.0) is zero
        assert found["value"] >= 0
        assert found["unit"] == "nats/token"
        assert not found["higher_is_better"]


def test_per_token_means_per_token():
    policy, sft, tokenizer = tiny.llama(1), tiny.llama(2), tiny.tokenizer()
    prepared = prepare(Task("text", ("kl_to_sft",), ROWS), tokenizer)
    found = measure(policy, prepared, tokenizer, refer(sft, prepared, tokenizer))["kl_to_sft"]
    total = completion_divergence(policy, sft, prepared.completions, 0).sum().item()
    assert found["value"] == pytest.approx(total / sum(one.length for one in prepared.completions))


def test_without_the_sft_model_and_with_another_vocabulary_one_line_says_so():
    tokenizer = tiny.tokenizer()
    with pytest.raises(RecipeError, match="SFT model as the reference"):
        evaluate(tiny.llama(1), [Task("text", ("kl_to_sft",), ROWS)], tokenizer=tokenizer)
    wide = tiny.llama(2)
    wide.resize_token_embeddings(300)
    with pytest.raises(CheckpointError, match="258 tokens, the SFT model 300"):
        evaluate(tiny.llama(1), [Task("text", ("kl_to_sft",), ROWS)], wide, tokenizer)
