"""Which word each row of an embedding stands for: a tokenizer's vocabulary, whatever file it is kept in.

Read from the files themselves, so that a tokenizer that is only a SentencePiece model, a tekken.json or a tiktoken table
is known as well as a tokenizer.json, and without a tokenizer library.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from mergetool import reading
from mergetool.checkpoint.place import Place
from mergetool.checkpoint.recognise import LFS_HINT, is_pointer
from mergetool.errors import CheckpointError

WORDS = "tokenizer.json"
_PIECES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "source.spm")
_TIKTOKEN = ("tiktoken.model", "qwen.tiktoken")
_FILES = (WORDS, "tekken.json", *_PIECES, *_TIKTOKEN, "vocab.json", "vocab.txt")
_ROWS = 1 << 31
_ADDED = ("added_tokens.json", "tokenizer_config.json")


def words_of(place: Place) -> dict[str, int] | None:
    """Word -> row of a checkpoint's vocabulary; None where it has no tokenizer that is known here.

    Words of byte-level vocabularies are spelled in GPT-2's alphabet, as tokenizer.json spells them, whatever the file.

    Raises:
        CheckpointError: a tokenizer file is damaged.
    """
    files = place.files()
    file = next((name for name in _FILES if name in files), None)
    if file is None:
        return None
    words = dict(_read(place.path(file)))
    if file != WORDS:
        for name in _ADDED:
            if name in files:
                words.update(_added(place.path(name)))
    return words


def same_words(a: Place, b: Place) -> bool:
    """True where two checkpoints' tokenizers map the same words to the same rows (or one of them has no tokenizer)."""
    if a.directory == b.directory:
        return True
    known = [(getattr(place.pinned, "files", None) or {}).get(WORDS) for place in (a, b)]
    if known[0] and known[0] == known[1]:
        return True  # the Hub tells the hash of either: nothing need be fetched
    first, second = words_of(a), words_of(b)
    return first is None or second is None or first == second


@lru_cache(maxsize=8)
def _known(path: Path, size: int, changed: int) -> dict[str, int]:
    words = _parsed(path)
    if wrong := next((word for word, row in words.items() if type(row) is not int or not 0 <= row < _ROWS), None):
        raise CheckpointError(f"{path}: is not a tokenizer file ({wrong!r} has no row)", "fetch the file again")
    return words


def _parsed(path: Path) -> dict[str, int]:
    try:
        if path.name == WORDS:
            return _of_tokenizer_json(reading.parsed_file(path))
        if path.name == "tekken.json":
            return _of_tekken(reading.parsed_file(path))
        if path.name in _PIECES:
            return {piece: row for row, piece in enumerate(_pieces(reading.content(path)))}
        if path.name in _TIKTOKEN:
            pairs = (line.split() for line in reading.content(path).splitlines() if line.strip())
            return {byte_level(base64.b64decode(word)): int(row) for word, row in pairs}
        if path.name == "vocab.txt":
            return {word: row for row, word in enumerate(reading.text(path).splitlines())}
        return {str(word): int(row) for word, row in reading.parsed_file(path).items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, StopIteration) as error:
        raise CheckpointError(f"{path}: is not a tokenizer file ({error})", "fetch the file again") from None


def _read(path: Path) -> dict[str, int]:
    if not path.exists():  # a link to nothing
        raise CheckpointError(f"{path}: no such tokenizer file", "fetch the file again")
    with reading.opened(path) as file:
        if is_pointer(file.read(64)):
            raise CheckpointError(f"{path}: is a Git-LFS pointer and not the file itself", LFS_HINT)
    found = path.stat()
    return _known(path, found.st_size, found.st_mtime_ns)


def _added(path: Path) -> dict[str, int]:
    """Words that a slow tokenizer keeps beside its vocabulary."""
    try:
        content = reading.parsed_file(path)
        if path.name == "added_tokens.json":
            return {str(word): int(row) for word, row in content.items()}
        return {token["content"]: int(row) for row, token in (content.get("added_tokens_decoder") or {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not a tokenizer file ({error})", "fetch the file again") from None


def _of_tokenizer_json(content: Any) -> dict[str, int]:
    vocabulary = content["model"].get("vocab") or {}
    if not isinstance(vocabulary, dict):  # a unigram model lists [word, score]
        vocabulary = {word: row for row, (word, _) in enumerate(vocabulary)}
    return {**vocabulary, **{token["content"]: token["id"] for token in content.get("added_tokens") or []}}


def _of_tekken(content: Any) -> dict[str, int]:
    """Mistral's own file: the special tokens are the first rows, the words by rank come after them."""
    config = content["config"]
    first, size = config["default_num_special_tokens"], config["default_vocab_size"]
    words = {f"<SPECIAL_{row}>": row for row in range(first)}
    for token in content.get("special_tokens") or []:
        words.pop(f"<SPECIAL_{token['rank']}>", None)
        words[token["token_str"]] = token["rank"]
    for token in content["vocab"][: size - first]:
        words[byte_level(base64.b64decode(token["token_bytes"]))] = token["rank"] + first
    return words


def byte_level(word: bytes) -> str:
    """Bytes in GPT-2's alphabet of printable letters."""
    return "".join(map(_alphabet().__getitem__, word))


@lru_cache(maxsize=1)
def _alphabet() -> list[str]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _pieces(raw: bytes) -> Iterator[str]:
    """The pieces of a SentencePiece model, in order: field 1 of each of the messages in field 1."""
    for number, value in _fields(raw):
        if number == 1 and isinstance(value, bytes):
            yield next(v.decode() for n, v in _fields(value) if n == 1 and isinstance(v, bytes))


def _fields(raw: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a protocol-buffer message."""
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(raw, at)
        elif kind == 2:
            length, at = _varint(raw, at)
            value, at = raw[at : at + length], at + length
        elif kind in (1, 5):
            value, at = 0, at + (8 if kind == 1 else 4)
        else:
            raise ValueError("not a protocol-buffer message")
        if at > len(raw):
            raise ValueError("truncated")
        yield key >> 3, value


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
