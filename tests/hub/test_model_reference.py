"""A model reference is a directory or a Hub id, with at most one adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.errors import CheckpointError
from mergetool.hub.model_reference import ModelReference, is_local


@pytest.mark.parametrize(
    ("text", "model", "adapter", "repositories"),
    [
        ("org/name", "org/name", None, ["org/name"]),
        ("org/name@v1+you/lora@main", "org/name@v1", "you/lora@main", ["org/name", "you/lora"]),
        ("./sft+org/lora", "./sft", "org/lora", ["org/lora"]),
        ("sft", "sft", None, []),
    ],
)
def test_a_reference_is_a_model_and_perhaps_an_adapter(text: str, model: str, adapter: str | None, repositories: list) -> None:
    read = ModelReference.read(text)
    assert (read.model, read.adapter) == (model, adapter)
    assert read.repositories == repositories


def test_a_directory_whose_name_has_a_plus_is_that_directory(tmp_path: Path) -> None:
    (tmp_path / "a+b").mkdir()
    assert ModelReference.read(tmp_path / "a+b") == ModelReference(str(tmp_path / "a+b"))


def test_two_adapters_are_refused() -> None:
    with pytest.raises(CheckpointError, match="has more than one adapter; merge one adapter at a time"):
        ModelReference.read("org/name+a/b+c/d")


def test_what_exists_here_is_local_before_it_is_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_local("org/name")
    (tmp_path / "org/name").mkdir(parents=True)
    assert is_local("org/name")
    assert is_local(Path("not/there"))
    assert is_local("single-word")
