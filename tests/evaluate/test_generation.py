"""A greedy answer is the model's own, whoever shares the batch; samples follow the model's distribution."""

import torch

from mergetool.evaluate.generation import greedy, sampled
from tests.evaluate import tiny


def test_greedy_answers_do_not_depend_on_who_shares_the_batch():
    model, tokenizer = tiny.llama(3), tiny.tokenizer()
    prompts = [tokenizer("x" * n)["input_ids"] for n in (1, 4, 9, 2)]
    together = greedy(model, tokenizer, prompts, 8, stop_at_newline=True)
    assert together == [greedy(model, tokenizer, [prompt], 8, stop_at_newline=True)[0] for prompt in prompts]


def test_samples_follow_the_models_distribution_and_are_the_same_again():
    model, tokenizer = tiny.llama(3), tiny.tokenizer()
    prompt = tokenizer("ab")["input_ids"]
    with torch.no_grad():
        p = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    count = 4000
    before = torch.random.get_rng_state()
    rows = sampled(model, tokenizer, [prompt] * count, 1, 1)
    assert torch.equal(before, torch.random.get_rng_state())
    seen = torch.bincount(torch.tensor([some[0].ids[some[0].start] for some in rows]), minlength=len(p)) / count
    # Pearson's statistic over the likely tokens: mean and variance of a chi-square of as many degrees of freedom
    likely = p > 5 / count
    statistic = float((count * (seen - p)[likely].square() / p[likely]).sum())
    degrees = int(likely.sum())
    assert abs(statistic - degrees) < 6 * (2 * degrees) ** 0.5
    assert rows == sampled(model, tokenizer, [prompt] * count, 1, 1)


def test_a_sample_ends_at_the_end_of_sequence_token_and_keeps_it():
    model, tokenizer = tiny.llama(3), tiny.tokenizer()
    end = tokenizer.eos_token_id
    model.lm_head.register_forward_hook(lambda _, __, out: out.index_fill(-1, torch.tensor([end]), 1e4))
    ((one,), (other,)) = sampled(model, tokenizer, [[5, 6], [7]], 8, 1)
    assert one.ids == (5, 6, end)
    assert (one.start, one.length) == (2, 1)
    assert other.ids == (7, end)
