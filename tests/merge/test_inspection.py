"""Norms, deltas and signs of a checkpoint are what torch computes of its tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergetool.errors import CheckpointError, OutputError, RecipeError
from mergetool.merge.inspection import by_layer, heat_map, inspect
from tests.helpers import random_weights, write_checkpoint

NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, dict[str, torch.Tensor]]:
    base = random_weights(0)
    found = {"base": base, "a": random_weights(1, near=base), "b": random_weights(2, near=base)}
    for name, one in found.items():
        write_checkpoint(tmp_path / name, one)
    return found


def test_the_facts_of_a_tensor(weights: dict, tmp_path: Path) -> None:
    facts = {fact.name: fact for fact in inspect(tmp_path / "a", tmp_path / "base", tmp_path / "b")}
    fact = facts[NAME]
    delta, theirs = weights["a"][NAME] - weights["base"][NAME], weights["b"][NAME] - weights["base"][NAME]
    assert fact.norm == pytest.approx(float(weights["a"][NAME].norm()), rel=1e-5)
    assert fact.delta_norm == pytest.approx(float(delta.norm()), rel=1e-5)
    assert fact.relative == pytest.approx(float(delta.norm() / weights["base"][NAME].norm()), rel=1e-5)
    cosine = torch.nn.functional.cosine_similarity(delta.flatten(), theirs.flatten(), dim=0)
    assert fact.cosine == pytest.approx(float(cosine), abs=1e-5)
    assert fact.sign_agreement == pytest.approx(float((delta.sign() == theirs.sign()).float().mean()), abs=1e-6)
    assert fact.changed == 1.0


def test_layers_add_up(weights: dict, tmp_path: Path) -> None:
    facts = inspect(tmp_path / "a", tmp_path / "base")
    rows = by_layer(facts)
    assert [row["layer"] for row in rows] == ["other", *(f"model.layers.{i}" for i in range(3))]
    assert sum(row["parameters"] for row in rows) == sum(w.numel() for w in weights["a"].values())
    total = sum(row["delta_norm"] ** 2 for row in rows)
    assert total == pytest.approx(
        sum(float((weights["a"][n] - w).square().sum()) for n, w in weights["base"].items()), rel=1e-4
    )
    heat_map(facts, tmp_path / "map.png", "a")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_compared_is_said(weights: dict, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="needs base"):
        inspect(tmp_path / "a", other=tmp_path / "b")
    write_checkpoint(tmp_path / "small", random_weights(0, num_hidden_layers=2), num_hidden_layers=2)
    with pytest.raises(CheckpointError, match="small"):
        inspect(tmp_path / "a", tmp_path / "small")


def test_layers_of_any_number_and_names_of_any_letters_are_drawn(tmp_path: Path) -> None:
    weights = random_weights(0)
    weights["model.layers.999999999.a$b_[bold]\x1b[31m.weight"] = torch.ones(4)
    write_checkpoint(tmp_path / "m", weights)
    heat_map(inspect(tmp_path / "m"), tmp_path / "m.png", "a $title_{ with [markup]")
    assert (tmp_path / "m.png").stat().st_size < 1_000_000
    with pytest.raises(OutputError, match="is not supported"):
        heat_map(inspect(tmp_path / "m"), tmp_path / "m.xyz", "m")
