"""What a configuration says of tying, and how it is made to say the other."""

from __future__ import annotations

import pytest

from mergetool.architecture.skeleton import skeleton_of
from mergetool.architecture.tying import stated, untied
from tests.architecture.small import SIZE, T5


def test_a_tied_model_says_so_also_from_a_nested_configuration() -> None:
    assert stated({"tie_word_embeddings": True})
    assert stated({"text_config": {"tie_word_embeddings": True}})
    assert not stated({})
    assert stated({}) is None
    assert stated({"tie_word_embeddings": False}) is False


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gemma3"])
def test_untying_changes_one_key_where_the_class_reads_it(kind: str) -> None:
    if kind == "gemma3":
        config = {"model_type": kind, "text_config": {**SIZE, "head_dim": 8, "model_type": "gemma3_text"}}
    else:
        config = {"model_type": kind, **SIZE, **({"tie_word_embeddings": True} if kind == "llama" else {})}
    before = skeleton_of(config)
    assert before is not None
    assert before.tied
    changed = untied(config, "lm_head.weight")
    after = skeleton_of(changed)
    assert after is not None
    assert "lm_head.weight" not in after.tied
    assert after.shapes == before.shapes
    assert {**changed, "tie_word_embeddings": None} == {**config, "tie_word_embeddings": None}


def test_what_is_always_tied_keeps_its_configuration_as_it_was() -> None:
    config = {"model_type": "t5", **T5}  # the key would switch off a scaling and tie nevertheless
    assert untied(config, "lm_head.weight") == config
