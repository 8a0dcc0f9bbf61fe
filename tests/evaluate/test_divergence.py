"""KL to SFT is torch's kl_div over the whole vocabulary at every completion token; a model is at distance 0 from itself."""

import pytest
import torch

from mergetool.errors import CheckpointError, RecipeError
from mergetool.evaluate import Task, evaluate, measure, prepare, refer
from mergetool.evaluate.divergence import completion_divergence
from mergetool.evaluate.tokens import code_completion
from tests.evaluate import tiny

ROWS = [{"prompt": "p" * n, "completion": "word " * (n + 1)} for n in range(7)]


def test_it_is_what_torch_computes_row_by_row():
    policy, sft, tokenizer = tiny.llama(1), tiny.llama(2), tiny.tokenizer()
    coded = [code_completion(tokenizer, row, 256) for row in ROWS]
    found = completion_divergence(policy, sft, coded, 0)
    for at, one in enumerate(coded):
        ids = torch.tensor([one.ids])
        places = range(max(one.start, 1) - 1, len(one.ids) - 1)
        ours, theirs = (model(input_ids=ids).logits[0, places].log_softmax(-1) for model in (policy, sft))
        expected = torch.nn.functional.kl_div(theirs, ours, log_target=True, reduction="sum")  # KL(ours || theirs)
        assert found[at].item() == pytest.approx(expected.item(), rel=1e-4)


def test_chunks_do_not_change_it(monkeypatch):
    policy, sft, tokenizer = tiny.llama(1), tiny.llama(2), tiny.tokenizer()
    coded = [code_completion(tokenizer, row, 256) for row in ROWS]
    whole = completion_divergence(policy, sft, coded, 0)
    monkeypatch.setattr("mergetool.evaluate.divergence.ROWS", 3)
    monkeypatch.setattr("mergetool.evaluate.logprobs.BATCH_TOKENS", 20)
    torch.testing.assert_close(completion_divergence(policy, sft, coded, 0), whole, rtol=1e-5, atol=1e-5)


def test_two_models_share_the_memory_that_one_had(monkeypatch):
    monkeypatch.setattr("mergetool.evaluate.logprobs.LOGIT_BYTES", 4 * 258 * 20)
    sizes = []
    policy, sft, tokenizer = tiny.llama(1), tiny.llama(2), tiny.tokenizer()
    for model in (policy, sft):
        model.lm_head.register_forward_hook(lambda _, __, out: sizes.append(out.shape[1]))
    rows = [{"prompt": "p", "completion": "abc"}] * 30
    completion_divergence(policy, sft, [code_completion(tokenizer, row, 64) for row in rows], 0)
    assert len(sizes) > 2
    assert max(sizes) <= 10


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
