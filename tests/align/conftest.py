"""A small real triple for the align tests: three Llama directories, a tokenizer, and preference files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.align.tiny import make_pairs, make_triple


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Matrices this small only wait for a second thread: with two, on a busy machine, a step takes 50 times as long."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package", autouse=True)
def own_cache(tmp_path_factory):
    """Tests neither read nor fill the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MERGETOOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def triple(tmp_path_factory) -> Path:
    """A directory with base/, sft/, train.jsonl and eval.jsonl; not to be written to."""
    folder = tmp_path_factory.mktemp("triple")
    make_triple(folder)
    make_pairs(folder / "train.jsonl", 24)
    make_pairs(folder / "eval.jsonl", 6, start=100)
    return folder
