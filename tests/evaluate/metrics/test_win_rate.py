"""The judge compares the model's greedy answers with the SFT model's."""

import pytest

from mergetool.errors import RecipeError
from mergetool.evaluate import Instruments, Task, evaluate, measure, prepare, refer
from tests.evaluate import endpoint, tiny
from tests.evaluate.endpoint import settings

pytestmark = pytest.mark.usefixtures("key")


def test_win_rate_compares_the_greedy_answers_with_those_of_sft_and_sft_has_one_half():
    sft, policy, tokenizer = tiny.llama(2), tiny.llama(1), tiny.tokenizer()
    rows = [{"prompt": f"say {at}"} for at in range(6)]
    with endpoint.judge(lambda _, first, second: f"[[{'A' if len(first) > len(second) else 'B'}]]") as seen:
        task = Task("chat", ("win_rate",), rows, max_new_tokens=6, judge=settings(seen.url))
        prepared = prepare(task, tokenizer)
        reference, kept = refer(sft, prepared, tokenizer), Instruments()
        ours = refer(policy, prepared, tokenizer).answers
        found = measure(policy, prepared, tokenizer, reference, instruments=kept)["win_rate"]
        assert measure(sft, prepared, tokenizer, reference, instruments=kept)["win_rate"]["value"] == 0.5
    wins = [
        0.5 if len(one.strip()) == len(other.strip()) else float(len(one.strip()) > len(other.strip()))
        for one, other in zip(ours, reference.answers, strict=True)
    ]
    assert found["value"] == pytest.approx(sum(wins) / 6)
    assert found["without_verdict"] == 0


def test_a_judge_without_reference_answers_is_an_error():
    task = Task("chat", ("win_rate",), [{"prompt": "a"}], judge=settings("http://localhost:1/v1"))
    with pytest.raises(RecipeError, match="SFT model as the reference"):
        evaluate(tiny.llama(), [task], tokenizer=tiny.tokenizer())
