"""A vocabulary is the same vocabulary in whatever file it is kept."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest

from mergetool.checkpoint.place import Directory
from mergetool.checkpoint.words import byte_level, same_words, words_of
from mergetool.errors import CheckpointError

TEXT = [
    "a small text about merging models",
    "merging is an operator on deltas",
    "naïve words: größer, 模型 and more words",
] * 20


def as_sentencepiece(directory: Path, kind: str) -> None:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=model,
        vocab_size=320,
        model_type=kind,
        byte_fallback=True,
        hard_vocab_limit=False,
    )
    (directory / "tokenizer.model").write_bytes(model.getvalue())


def as_byte_level(directory: Path) -> list[bytes]:
    """A byte-level BPE as tokenizer.json -> its words as bytes, by row."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    letters = {byte_level(bytes([b])): b for b in range(256)}
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [bytes(letters[letter] for letter in word) for word, _ in words]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_sentencepiece_model_is_read_as_sentencepiece_reads_it(tmp_path: Path, kind: str) -> None:
    import sentencepiece

    as_sentencepiece(tmp_path, kind)
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert words_of(Directory(tmp_path)) == {model.id_to_piece(i): i for i in range(model.get_piece_size())}


def test_a_tiktoken_table_and_a_tokenizer_json_of_the_same_words_are_the_same(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    words = as_byte_level(one)
    (other / "tiktoken.model").write_text("".join(f"{base64.b64encode(w).decode()} {i}\n" for i, w in enumerate(words)))
    assert same_words(Directory(one), Directory(other))
    (other / "tiktoken.model").write_text("".join(f"{base64.b64encode(w).decode()} {i}\n" for i, w in enumerate(words[::-1])))
    assert not same_words(Directory(one), Directory(other))


def test_tekken_puts_its_special_tokens_before_its_words(tmp_path: Path) -> None:
    words = [b"a", b"b", "ö".encode(), b" ab"]
    content = {
        "config": {"default_num_special_tokens": 3, "default_vocab_size": 6},
        "vocab": [{"rank": i, "token_bytes": base64.b64encode(w).decode(), "token_str": None} for i, w in enumerate(words)],
        "special_tokens": [{"rank": 0, "token_str": "<unk>"}, {"rank": 1, "token_str": "<s>"}],
    }
    (tmp_path / "tekken.json").write_text(json.dumps(content))
    assert words_of(Directory(tmp_path)) == {"<unk>": 0, "<s>": 1, "<SPECIAL_2>": 2, "a": 3, "b": 4, "Ã¶": 5}


def test_slow_tokenizers_and_their_added_tokens_are_read(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1}))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<x>": 2}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"3": {"content": "<y>"}}}))
    assert words_of(Directory(tmp_path)) == {"a": 0, "b": 1, "<x>": 2, "<y>": 3}
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "vocab.txt").write_text("[PAD]\nword\n")
    assert words_of(Directory(tmp_path)) == {"[PAD]": 0, "word": 1, "<x>": 2, "<y>": 3}


@pytest.mark.parametrize("file", ["tokenizer.json", "tekken.json", "tokenizer.model", "tiktoken.model", "vocab.json"])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(b'{"model": [\xff')
    with pytest.raises(CheckpointError, match=file):
        words_of(Directory(tmp_path))


def test_a_checkpoint_without_a_tokenizer_has_no_words(tmp_path: Path) -> None:
    assert words_of(Directory(tmp_path)) is None
