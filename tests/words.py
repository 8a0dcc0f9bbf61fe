"""Small models whose vocabularies differ: the same words at other rows, words that only one has, rows without words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.helpers import random_weights, write_checkpoint

SPECIAL = ["<s>", "</s>", "<pad>", "<unk>"]
PLAIN = [f"w{i}" for i in range(20)]


def write_words(directory: Path, seed: int, words: Sequence[str], rows: int | None = None, added: Sequence[str] = (),
                tied: bool = True) -> dict[str, torch.Tensor]:  # fmt: skip
    """A model with these words, in this order, and `added` tokens behind them -> its weights."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    size = rows or len(words) + len(added)
    weights = random_weights(seed, vocab_size=size, tie_word_embeddings=tied)
    write_checkpoint(directory, weights, vocab_size=size, tie_word_embeddings=tied, eos_token_id=list(words).index("</s>"))
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(w, special=True, normalized=False) for w in (*SPECIAL, *added)])
    tokenizer.save(str(directory / "tokenizer.json"))
    return weights


def words_in(directory: Path) -> dict[str, int]:
    """Word -> row, as transformers' own tokenizer has it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory).get_vocab()


def config_of(directory: Path) -> dict:
    """config.json."""
    return json.loads((directory / "config.json").read_text())
