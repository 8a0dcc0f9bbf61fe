"""A tokenizer with the words of several: those that the base lacks become added tokens of its tokenizer.json.

As mergekit 0.1.5 builds it (tokenizer/build.py, build_union_tokenizer), but in the order of the words' rows: mergekit
takes the order of a hash table, which differs from run to run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mergetool import reading
from mergetool.checkpoint.place import Place
from mergetool.checkpoint.words import WORDS
from mergetool.errors import CheckpointError

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
Word = tuple[str, Mapping[str, Any]]
"""A word, and how it is matched; an empty mapping for a word of a vocabulary."""


def added_words(places: Sequence[Place], words: Sequence[Mapping[str, int]], counts: Sequence[int], base: int) -> list[Word]:
    """The words that a union adds to the base's, in order: vocabularies first, then the tokens that were added to them.

    Args:
        places: where the tokenizers lie.
        words: word -> row of each model.
        counts: rows of each model; a word beyond them is not used.
        base: the model whose words are there already.
    """
    plain: dict[str, Mapping[str, Any]] = {}
    added: dict[str, Mapping[str, Any]] = {}
    order = [base, *(i for i in range(len(places)) if i != base)]
    tokens = {i: _added_tokens(places[i]) for i in order}
    for i in order:
        for word, row in sorted(words[i].items(), key=lambda item: item[1]):
            if row >= counts[i]:
                continue
            if word in tokens[i]:
                added.setdefault(word, tokens[i][word])
            elif i != base and word not in words[base]:
                plain.setdefault(word, {})
    new = {word: flags for word, flags in added.items() if word not in tokens[base]}
    return [*((w, f) for w, f in plain.items() if w not in new), *new.items()]


def _added_tokens(place: Place) -> dict[str, Mapping[str, Any]]:
    if WORDS not in place.files():
        return {}
    content = reading.parsed_file(place.path(WORDS))
    return {t["content"]: {flag: bool(t.get(flag)) for flag in _FLAGS} for t in content.get("added_tokens") or []}


def with_words(place: Place, words: Sequence[Word]) -> tuple[str, dict[str, int]]:
    """A tokenizer.json with words added, and its vocabulary.

    Raises:
        CheckpointError: the tokenizer is of another kind, which cannot be added to.
    """
    if WORDS not in place.files():
        raise CheckpointError(
            f"{place.name}: words can be added to a {WORDS} alone, and its tokenizer has none",
            f"save it with transformers' AutoTokenizer, which writes {WORDS}",
        )
    from tokenizers import AddedToken, Tokenizer

    tokenizer = Tokenizer.from_file(str(place.path(WORDS)))
    for word, flags in words:
        if not flags and tokenizer.token_to_id(word) is not None:
            continue
        token = AddedToken(word, **flags)
        (tokenizer.add_special_tokens if flags.get("special") else tokenizer.add_tokens)([token])
    return tokenizer.to_str(pretty=True), tokenizer.get_vocab(with_added_tokens=True)
