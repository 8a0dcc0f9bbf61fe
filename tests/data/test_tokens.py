"""Rows are cut where TRL cuts them; what does not fit is left out and counted."""

import json

from mergetool.data.tokens import code_completion, code_inputs, code_pair, code_prompt
from mergetool.evaluate import Task, prepare
from tests.evaluate import tiny

PLAIN = [
    {"prompt": "How are you?", "chosen": " Fine, thank you.", "rejected": " Go away"},
    {"prompt": "Name a colour:", "chosen": " red<eos>", "rejected": " the sky is a colour that is long"},
    {"prompt": "a" * 30, "chosen": "b" * 40, "rejected": "c"},
]


def test_a_pair_is_cut_where_either_side_first_leaves_the_prompt():
    class Merging:
        """Merges 'e ' across the boundary, as real vocabularies do."""

        eos_token = "$"

        def __call__(self, text):
            return {"input_ids": [ord(letter) for letter in text.replace("e ", "E")]}

    chosen, rejected = code_pair(Merging(), {"prompt": "are", "chosen": " x", "rejected": "y"}, 99)
    assert chosen.start == rejected.start == 2
    assert len(chosen.ids) == 5  # a r E x $
    assert len(rejected.ids) == 5  # a r e y $


def test_a_row_whose_prompt_fills_the_window_is_left_out_and_counted():
    prepared = prepare(Task("pairs", ("reward_margin",), PLAIN, max_length=20), tiny.tokenizer())
    assert len(prepared.pairs) == 2
    assert prepared.left_out == 1


def test_running_text_gets_no_end_token_and_its_first_token_is_not_scored():
    coded = code_completion(tiny.tokenizer(), {"prompt": "", "completion": "hello"}, 99)
    assert len(coded.ids) == 5
    assert coded.length == 4


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if loud %}!{% endif %}"
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] or '' }}"
    "{% for call in m['tool_calls'] or [] %}[{{ call['function']['name'] }}]{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_tools_and_arguments_of_a_row_reach_its_template() -> None:
    """What is measured is what TRL trains on: `tools`, as objects or as JSON, and `chat_template_kwargs`."""
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = TEMPLATE
    prompt, call = [{"role": "user", "content": "red"}], [{"role": "assistant", "tool_calls": [{"function": TOOL["function"]}]}]
    row = {"prompt": prompt, "completion": call, "chosen": call, "rejected": [{"role": "assistant", "content": "no"}]}
    row |= {"tools": [TOOL], "chat_template_kwargs": {"loud": True}}

    def read(messages: list, **more: object) -> list[int]:
        return tokenizer.apply_chat_template(messages, tools=[TOOL], loud=True, return_dict=True, **more)["input_ids"]

    asked, whole = read(prompt, add_generation_prompt=True), read(prompt + call)
    assert code_prompt(tokenizer, row) == asked
    assert code_prompt(tokenizer, {**row, "tools": json.dumps([TOOL])}) == asked
    assert len(code_prompt(tokenizer, {"prompt": prompt})) < len(asked)
    for coded in (code_completion(tokenizer, row, 999), code_pair(tokenizer, row, 999)[0]):
        assert list(coded.ids) == whole
        assert tokenizer.decode(coded.ids[coded.start :]).strip() == "[look]"
    assert list(code_inputs(tokenizer, row, 999)) == whole
