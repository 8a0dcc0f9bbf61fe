"""A run keeps the Fisher information that ewc weighs distances with: computed once, for whatever run needs it."""

from __future__ import annotations

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergetool.align.fisher import fisher_file
from mergetool.align.stay import Stay, tokenised
from mergetool.data.texts import completions
from mergetool.files import cache_directory


@pytest.fixture(scope="module")
def stay(triple) -> Stay:
    return tokenised(completions(triple / "stay.jsonl"), AutoTokenizer.from_pretrained(triple / "sft"), 32)


def test_it_is_computed_once_for_the_same_model_and_rows_and_outlives_the_cache(
    triple, stay, tmp_path, tmp_path_factory, monkeypatch
) -> None:
    monkeypatch.setenv("MERGETOOL_CACHE", str(tmp_path_factory.mktemp("cache")))  # other tests may have computed this very one
    told: list[dict] = []

    def make(rows: Stay, name: str) -> dict:
        told.clear()
        place = tmp_path / name
        made = fisher_file(
            triple / "sft", AutoModelForCausalLM, rows, place, "cpu", PartialState(), lambda event, facts: told.append(facts)
        )
        assert made == place
        return load_file(place)

    first = make(stay, "one")
    assert [facts["done"] for facts in told] == list(range(1, 11))
    again = make(stay, "two")
    assert not told
    assert all(torch.equal(first[name], again[name]) for name in first)
    make(Stay(stay.rows[:4]), "three")
    assert len(told) == 4
    for kept in cache_directory("fisher").iterdir():
        kept.unlink()
    make(stay, "two")
    assert not told, "a resumed run has its own"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "three", "two"]
