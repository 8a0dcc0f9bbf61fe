"""Which tensors have a row for each word is what transformers makes larger when the vocabulary is."""

from __future__ import annotations

import pytest

from mergetool.architecture.vocabulary import WordTensors, vocabulary_holder
from mergetool.checkpoint.layout import read_layout
from mergetool.errors import CheckpointError


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "GPT2LMHeadModel", "T5ForConditionalGeneration"])
def test_the_embedding_and_its_head_have_a_row_for_each_word(saved, kind: str) -> None:
    layout = read_layout(saved(kind, "a"))
    words = WordTensors(layout)
    size = vocabulary_holder(layout.config)["vocab_size"]
    assert {layout.tensors[name].shape[0] for name in words.weight} == {size}
    others = [info for name, info in layout.tensors.items() if name not in words.weight and len(info.shape) == 2]
    assert others
    assert all(info.shape[0] != size for info in others)


def test_of_an_unknown_architecture_nothing_is_guessed(saved) -> None:
    import json

    place = saved("LlamaForCausalLM", "a")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "model_type": "ourown"}))
    with pytest.raises(CheckpointError, match="which tensors have a row for each word is not known"):
        WordTensors(read_layout(place))


def test_a_nested_configuration_holds_the_words() -> None:
    assert vocabulary_holder({"vocab_size": 3, "text_config": {"vocab_size": 4}}) == {
        "vocab_size": 3,
        "text_config": {"vocab_size": 4},
    }
    assert vocabulary_holder({"text_config": {"vocab_size": 4}}) == {"vocab_size": 4}
