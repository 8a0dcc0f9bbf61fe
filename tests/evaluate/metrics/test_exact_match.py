"""An answer is right when it says what the reference answer says."""

import re

import pytest
import torch

from mergetool.evaluate import Task, evaluate, prepare
from mergetool.evaluate.metrics.exact_match import final_number, is_hit, normalise, text_of
from tests.evaluate import tiny
from tests.evaluate.tiny import SKILLS


def test_a_model_that_has_learnt_the_answers_matches_exactly():
    model, tokenizer = tiny.llama(), tiny.tokenizer()
    task = Task("skills", ("exact_match", "nll"), SKILLS[:3])
    coded = prepare(task, tokenizer).completions
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for _ in range(150):
        loss = sum(
            -model(input_ids=torch.tensor([one.ids])).logits[0].log_softmax(-1)[place - 1, one.ids[place]]
            for one in coded
            for place in range(one.start, len(one.ids))
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = evaluate(model, [task], tokenizer=tokenizer)
    assert found["skills.exact_match"]["value"] == 1.0
    assert found["skills.nll"]["value"] < 0.1


def test_answers_are_compared_after_normalisation():
    assert normalise("  The  King. ") == "the king"
    assert is_hit("The king", True, {"completion": "the king."})
    assert not is_hit("the king", False, {"completion": "the king"}), "still going on at the limit"
    assert not is_hit("the queen", True, {"completion": "the king"})


def test_gsm8k_answers_are_compared_by_the_number_after_the_mark():
    assert final_number("so 3 + 4 = 7\n#### 1,234.50") == "1234.5"
    assert final_number("it is 12.") == "12"
    assert final_number("none") is None
    assert is_hit("2+2=4\n#### 4 and on", False, {"completion": "#### 4", "target": "4"})
    assert not is_hit("#### 5", True, {"completion": "#### 4", "target": "4"})


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("it is .5", "0.5"),
        ("#### 0.50", "0.5"),
        ("from 10-15", "15"),
        ("#### 10-15", "10"),
        ("5 - 8 = \u22123", "-3"),
        ("#### -$1,234.00", "-1234"),
        ("it costs $7.", "7"),
        ("one of 1,2,3", "3"),
        ("1,00,000 in all", "100000"),
        ("-0", "0"),
        ("007", "7"),
    ],
)
def test_a_number_is_read_as_it_is_meant(text: str, number: str):
    assert final_number(text) == number


@pytest.mark.parametrize(
    "text", ["so\n#### 18", "it is $1,234 .", "18 - 3 is 15.", "#### -7 and 8", "12.5 dollars", "2+2=4", "none"]
)
def test_plain_answers_are_those_of_the_harness_filters(text: str):
    strict = re.findall(r"#### (\-?[0-9\.\,]+)", text)
    flexible = [a or b for a, b in re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", text)]
    found = (strict or flexible[-1:] or [None])[0]
    assert final_number(text) == (found and re.sub(r",|\$|\.$", "", found))


def test_a_call_of_a_tool_is_matched_as_the_template_writes_it() -> None:
    """A reference answer without content crashed; it is compared by the text of its tokens, and its line breaks end nothing."""
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] or '' }}{% for c in m['tool_calls'] or [] %}call\n{{ c['function']['name'] }}"
        "{% endfor %}{% endfor %}"
    )
    asked = [{"role": "user", "content": "who"}]
    call = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "look", "arguments": {}}}]}
    rows = [{"prompt": asked, "completion": [answer]} for answer in (call, {**call, "content": None})]
    assert [text_of(row["completion"]) for row in rows] == [None, None]
    assert text_of([{"role": "assistant", "content": [{"type": "text", "text": "re"}, {"type": "text", "text": "d"}]}]) == "red"
    task = Task("tools", ("exact_match",), rows)
    assert not prepare(task, tokenizer).stop_at_newline
    assert evaluate(tiny.llama(), [task], tokenizer=tokenizer)["tools.exact_match"]["value"] == 0.0
    assert is_hit("call\nlook", True, rows[0], "call\nlook")
    assert not is_hit("call\nlook", True, rows[0])
