"""The Fisher information that ewc weighs distances with is the mean of each row's own squared gradient."""

from __future__ import annotations

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergetool.align.fisher import fisher_diagonal, fisher_file
from mergetool.align.stay import Stay, tokenised
from mergetool.data.texts import completions
from mergetool.files import cache_directory


def silent(event: str, facts: dict) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def stay(triple) -> Stay:
    return tokenised(completions(triple / "stay.jsonl"), AutoTokenizer.from_pretrained(triple / "sft"), 32)


def by_hand(model, rows) -> dict[str, torch.Tensor]:
    """In fp64, a row at a time: the log-probability of an answer token by token, its gradient, the square."""
    model.double()
    found = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for row in rows:
        model.zero_grad()
        log_p = model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
        sum(log_p[at - 1, row.ids[at]] for at in range(row.start, len(row.ids))).backward()
        for name, p in model.named_parameters():
            found[name] += p.grad**2 / len(rows)
    return found


def test_it_is_the_mean_of_each_rows_squared_gradient_computed_alone(triple, stay) -> None:
    model, other = (AutoModelForCausalLM.from_pretrained(triple / "sft") for _ in range(2))
    found, expected = fisher_diagonal(model, stay, silent), by_hand(other, stay.rows)
    assert found.keys() == expected.keys()
    for name, square in found.items():
        assert square.dtype == torch.float32
        assert torch.allclose(square.double(), expected[name], rtol=1e-3, atol=1e-9 * float(expected[name].max())), name
    assert all(p.grad is None for p in model.parameters())
    whole = Stay(stay.rows[:1])
    assert not torch.allclose(fisher_diagonal(model, whole, silent)["model.norm.weight"], found["model.norm.weight"])


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
