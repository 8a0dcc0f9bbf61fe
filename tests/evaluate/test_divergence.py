"""KL to SFT is torch's kl_div over the whole vocabulary at every completion token; a model is at distance 0 from itself."""

import pytest
import torch

from mergetool.data.tokens import code_completion
from mergetool.evaluate.divergence import completion_divergence
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
