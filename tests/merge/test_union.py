"""A union adds each word once, in the order of its row, and the tokenizer then speaks it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mergetool.checkpoint.place import Directory
from mergetool.checkpoint.words import words_of
from mergetool.errors import CheckpointError
from mergetool.merge.union import added_words, with_words
from tests.helpers import write_tokenizer


@pytest.fixture
def places(tmp_path: Path) -> list[Directory]:
    for name, extra in (("a", None), ("b", "neu")):
        (tmp_path / name).mkdir()
        write_tokenizer(tmp_path / name, extra)
    return [Directory(tmp_path / name) for name in ("a", "b")]


def test_words_that_the_base_lacks_are_added_behind_its_own(places: list[Directory]) -> None:
    words = [words_of(place) or {} for place in places]
    added = added_words(places, words, [64, 64], 0)
    assert [word for word, _ in added] == ["neu"]
    text, vocabulary = with_words(places[0], added)
    assert vocabulary["neu"] == 64
    assert {word: row for word, row in vocabulary.items() if word != "neu"} == words[0]
    assert json.loads(text)["added_tokens"][-1]["content"] == "neu"


def test_a_word_beyond_the_rows_is_not_used(places: list[Directory]) -> None:
    words = [words_of(place) or {} for place in places]
    assert added_words(places, words, [64, 63], 0) == []


def test_a_tokenizer_that_cannot_be_added_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"words can be added to a tokenizer\.json alone"):
        with_words(Directory(tmp_path), [("x", {})])
