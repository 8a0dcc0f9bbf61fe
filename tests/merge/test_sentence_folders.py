"""A folder of sentence-transformers: its modules are carried, and it loads there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from mergetool.merge import merge, merge_recipe

MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]


def folder(place: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(place)
    (place / "vocab.txt").write_text("\n".join(WORDS))
    (place / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))
    (place / "modules.json").write_text(json.dumps(MODULES))
    (place / "config_sentence_transformers.json").write_text(json.dumps({"similarity_fn_name": "cosine"}))
    (place / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32, "do_lower_case": False}))
    (place / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    (place / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return place


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    models = [{"model": str(folder(tmp_path / name, seed)), "parameters": {"weight": 0.5}} for seed, name in enumerate("ab")]
    merge(merge_recipe({"merge_method": "linear", "models": models}), tmp_path / "out")
    return tmp_path / "out"


def test_its_modules_are_carried(merged: Path) -> None:
    assert json.loads((merged / "modules.json").read_text()) == MODULES
    assert json.loads((merged / "1_Pooling" / "config.json").read_text())["pooling_mode_mean_tokens"]
    assert (merged / "config_sentence_transformers.json").exists()
    assert (merged / "sentence_bert_config.json").exists()


def test_it_loads_there_and_its_sentences_are_those_of_the_mean(merged: Path) -> None:
    sentences = pytest.importorskip("sentence_transformers")
    found = sentences.SentenceTransformer(str(merged), device="cpu").encode(["a b c", "d"])
    assert found.shape == (2, 16)
    plain = BertModel.from_pretrained(merged).eval()
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    expected = plain(input_ids=ids).last_hidden_state.mean(1)[0]
    assert torch.allclose(torch.from_numpy(found[0]), expected, atol=1e-5)
