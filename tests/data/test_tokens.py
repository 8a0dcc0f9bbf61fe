"""Rows are cut where TRL cuts them; what does not fit is left out and counted."""

from mergetool.data.tokens import code_completion, code_pair
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
