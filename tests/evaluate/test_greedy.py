"""A greedy answer is the model's own, whoever shares the batch."""

from mergetool.evaluate.greedy import greedy
from tests.evaluate import tiny


def test_greedy_answers_do_not_depend_on_who_shares_the_batch():
    model, tokenizer = tiny.llama(3), tiny.tokenizer()
    prompts = [tokenizer("x" * n)["input_ids"] for n in (1, 4, 9, 2)]
    together = greedy(model, tokenizer, prompts, 8, stop_at_newline=True)
    assert together == [greedy(model, tokenizer, [prompt], 8, stop_at_newline=True)[0] for prompt in prompts]
