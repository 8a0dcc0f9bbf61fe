"""Reference log-probabilities are kept by content: read back when nothing changed, computed when anything did."""

from __future__ import annotations

import pytest

from mergetool.align import align, align_recipe
from mergetool.align.reference_cache import folder
from tests.align.tiny import recipe_text


@pytest.fixture
def run(triple, tmp_path, monkeypatch):
    monkeypatch.setenv("MERGETOOL_CACHE", str(tmp_path / "cache"))

    def once(name: str, **parts: object) -> tuple[bool, bytes]:
        told = {}
        recipe = align_recipe(recipe_text(triple, **parts))
        align(recipe, tmp_path / name, report=lambda event, facts: told.update({event: facts}))
        return told["reference"]["cached"], (tmp_path / name / "model.safetensors").read_bytes()

    return once


def test_the_second_run_reads_them_back_and_ends_with_the_same_bytes(run) -> None:
    first, again = run("first"), run("again")
    assert (first[0], again[0]) == (False, True)
    assert first[1] == again[1]


@pytest.mark.parametrize(("key", "value"), [("sft_model", "base"), ("data", {"max_length": 12}), ("algorithm", "kto")])
def test_another_reference_length_or_loss_is_computed(triple, run, key: str, value: object) -> None:
    run("first")
    if key == "sft_model":
        value = str(triple / "base")
    if key == "data":
        value = {"train": str(triple / "train.jsonl"), **value}
    assert run("other", **{key: value})[0] is False


def test_a_damaged_entry_is_computed_again(run) -> None:
    whole = run("first")[1]
    for path in folder().iterdir():
        path.write_bytes(path.read_bytes()[:20])
    assert run("again") == (False, whole)
