"""On its own samples the SFT model is at no distance from itself, and the divergence is that of the sampled tokens."""

import pytest

from mergetool.evaluate import Task, evaluate
from mergetool.evaluate.divergence import completion_divergence
from mergetool.evaluate.generation import sampled
from tests.evaluate import tiny

ROWS = [{"prompt": "ab"}, {"prompt": "cde"}, {"prompt": "f"}]


def test_it_is_zero_for_the_sft_model_and_else_the_divergence_per_sampled_token():
    sft, other, tokenizer = tiny.llama(2), tiny.llama(1), tiny.tokenizer()
    task = Task("chat", ("kl_on_samples",), ROWS, max_new_tokens=6)
    assert evaluate(sft, [task], sft, tokenizer)["chat.kl_on_samples"]["value"] == 0
    found = evaluate(other, [task], sft, tokenizer)["chat.kl_on_samples"]
    prompts = [tokenizer(row["prompt"])["input_ids"] for row in ROWS]
    rows = [some[0] for some in sampled(other, tokenizer, prompts, 6, 1)]
    total = completion_divergence(other, sft, rows, 0).sum().item()
    assert found["value"] == pytest.approx(total / sum(row.length for row in rows))
    assert found["value"] > 0
