"""A small real triple for the align tests: three Llama directories, a tokenizer, and preference files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.align.tiny import make_pairs, make_triple


@pytest.fixture(scope="session")
def triple(tmp_path_factory) -> Path:
    """A directory with base/, sft/, train.jsonl and eval.jsonl; not to be written to."""
    folder = tmp_path_factory.mktemp("triple")
    make_triple(folder)
    make_pairs(folder / "train.jsonl", 24)
    make_pairs(folder / "eval.jsonl", 6, start=100)
    return folder
