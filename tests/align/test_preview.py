"""The preview shows a row as the model will see it, with its opening and closing tokens counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mergetool.align.algorithms import ALGORITHMS
from mergetool.align.preview import preview, prompt_text
from mergetool.errors import DataError


@pytest.fixture(scope="module")
def tokenizer(triple) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(triple / "sft")


def shown(algorithm: str, row: dict, tokenizer: Any) -> dict[str, Any]:
    told = {}
    trainer = SimpleNamespace(train_dataset=[row], recipe=SimpleNamespace(algorithm_row=ALGORITHMS[algorithm]))
    preview(trainer, tokenizer, lambda event, facts: told.update({event: facts}))
    return told["preview"]


def test_each_side_of_a_pair_is_shown_after_its_prompt(tokenizer) -> None:
    ids = {word: tokenizer(word)["input_ids"] for word in ("how", "good", "bad")}
    row = {"prompt_ids": [1, *ids["how"]], "chosen_ids": [*ids["good"], 2], "rejected_ids": [*ids["bad"], 2]}
    found = shown("dpo", row, tokenizer)
    assert list(found) == ["chosen", "rejected"]
    assert found["chosen"] == {"text": "<s> how good </s>", "tokens": 4, "bos": 1, "eos": 1}


def test_a_prompt_that_answers_are_sampled_to_opens_the_answer(tokenizer) -> None:
    row = {"prompt": [{"role": "user", "content": "how"}]}
    assert shown("grpo", row, tokenizer)["input"]["text"] == "<user> how <assistant>"


def test_a_conversation_needs_a_template(tokenizer) -> None:
    assert prompt_text("how", tokenizer) == "how"
    with pytest.raises(DataError, match="no chat template"):
        prompt_text([{"role": "user", "content": "how"}], SimpleNamespace(chat_template=None))
