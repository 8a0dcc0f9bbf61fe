"""A model that cannot be trained is one line before its first step: no end of text, too many tokens, no template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mergetool.align import align_recipe
from mergetool.align.inputs import load_policy, load_rows
from mergetool.errors import CheckpointError, DataError
from tests.align.tiny import recipe_text

TEXT = [{"prompt": "how is the cat", "chosen": " good", "rejected": " bad"}]


@pytest.fixture
def sft(triple, tmp_path) -> Path:
    return shutil.copytree(triple / "sft", tmp_path / "sft")


def test_rows_come_with_their_seed_and_their_count_in_words(triple) -> None:
    told = []
    recipe = align_recipe(recipe_text(triple, data={"train": str(triple / "train.jsonl"), "limit": 5}))
    rows, words = load_rows(recipe, lambda event, facts: told.append((event, facts["name"])))
    assert (len(rows["train"]), list(words), told) == (5, ["train"], [("rows", "train")])


def test_the_policy_is_the_class_and_the_type_that_are_asked_for(triple) -> None:
    import torch

    recipe = align_recipe(recipe_text(triple, dtype="bfloat16"))
    model, tokenizer = load_policy(recipe, triple / "sft", TEXT)
    assert (type(model).__name__, model.dtype) == ("LlamaForCausalLM", torch.bfloat16)
    assert tokenizer.eos_token == "</s>"


def test_what_cannot_be_trained_is_one_line(triple, sft) -> None:
    from transformers import AutoTokenizer

    recipe = align_recipe(recipe_text(triple))
    talk = [{"prompt": [{"role": "user", "content": "how"}], "chosen": [], "rejected": []}]
    (sft / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(DataError, match="the tokenizer has no chat template"):
        load_policy(recipe, sft, talk)
    tokenizer = AutoTokenizer.from_pretrained(sft)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(sft)
    with pytest.raises(CheckpointError, match="more tokens than its embedding has rows"):
        load_policy(recipe, sft, TEXT)
    config = json.loads((sft / "config.json").read_text())
    (sft / "config.json").write_text(json.dumps({**config, "vocab_size": config["vocab_size"] - 1}))
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        load_policy(recipe, sft, TEXT)
    (sft / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        load_policy(recipe, sft, TEXT)
