"""Names on disk and names in memory: what transformers makes of a file, checked against what it loads."""

from __future__ import annotations

import pytest
import torch

from mergetool.architecture.reading import copies_of, disk_name, live_name, reading_of
from mergetool.checkpoint.layout import read_layout
from tests.architecture.small import SIZES, rewrite


@pytest.mark.parametrize("kind", SIZES)
def test_a_saved_model_is_read_whole(saved, kind: str) -> None:
    layout = read_layout(saved(kind, "m"))
    reading = reading_of(layout)
    assert reading is not None
    assert not reading.unneeded
    assert not reading.missing()
    assert {*reading.live, *(name for fused in reading.fused.values() for name in fused.names)} == set(layout.tensors)
    for name, weight in reading.live.items():
        assert disk_name(reading.skeleton, weight) == name
        assert live_name(reading.skeleton, name) == weight


def test_a_head_is_missing_where_nothing_stands_for_it(saved) -> None:
    directory = saved("LlamaForCausalLM", "m", tie_word_embeddings=False)
    reading = reading_of(read_layout(rewrite(directory, lm_head__weight=None)))
    assert reading is not None
    assert reading.missing() == ["lm_head.weight"]
    assert reading.stands_for("lm_head.weight") is None


def test_either_name_stands_for_a_tied_weight(saved) -> None:
    directory = saved("LlamaForCausalLM", "m")
    embedding = torch.ones(96, 32)
    reading = reading_of(read_layout(rewrite(directory, lm_head__weight=embedding, model__embed_tokens__weight=None)))
    assert reading is not None
    assert reading.stands_for("model.embed_tokens.weight") == "lm_head.weight"
    assert not reading.missing()
    assert reading.copies() == []


def test_a_weight_that_is_stored_twice_is_seen_as_such(saved) -> None:
    assert copies_of(read_layout(saved("LlamaForCausalLM", "tied"))) == []
    twice = rewrite(saved("LlamaForCausalLM", "twice"), lm_head__weight=torch.ones(96, 32))
    found = [("lm_head.weight", "lm_head.weight", "model.embed_tokens.weight")]
    assert copies_of(read_layout(twice)) == found
    assert copies_of(read_layout(saved("LlamaForCausalLM", "two", tie_word_embeddings=False))) == []
