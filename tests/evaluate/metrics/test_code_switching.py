"""The rate is the share of answers that leave the scripts of their rows."""

import torch

from mergetool.evaluate import Task, evaluate
from tests.evaluate import tiny


def test_the_rate_is_the_share_of_answers_and_lower_is_better():
    model, tokenizer = tiny.llama(3), tiny.tokenizer()
    letter = tokenizer("a")["input_ids"][0]
    model.lm_head.register_forward_hook(lambda _, __, out: out.index_fill(-1, torch.tensor([letter]), 1e4))  # writes aaa...
    rows = [{"prompt": f"{at} + {at} = ", "scripts": ["Han"] if at < 2 else ["Latin"]} for at in range(8)]
    score = evaluate(model, [Task("chat", ("code_switching",), rows, max_new_tokens=4)], tokenizer=tokenizer)
    score = score["chat.code_switching"]
    assert score["value"] == 2 / 8
    assert score["low"] <= 2 / 8 <= score["high"]
    assert not score["higher_is_better"]
