"""The file of F is what `fisher_diagonal` gives, whatever the groups, and goes on where it was interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mergetool.activations import fisher_file
from mergetool.activations.fisher import fisher_diagonal
from mergetool.activations.fisher_file import FisherFile, fisher_key, groups_of, kept_fisher, kept_place, make_fisher
from mergetool.errors import CheckpointError, OutputError
from tests.activations.models import live
from tests.activations.test_fisher import ROWS
from tests.helpers import random_weights, write_checkpoint


def model() -> Any:
    return live("llama")


def loader(made: list[int]) -> Callable[[], Any]:
    def load() -> Any:
        made.append(1)
        return model()

    return load


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    return fisher_diagonal(model().requires_grad_(True), ROWS)


@pytest.mark.parametrize("group_bytes", [fisher_file.GROUP_BYTES, 8 * 3000])
def test_the_file_holds_the_diagonal_whatever_the_groups(
    expected: dict[str, torch.Tensor], tmp_path: Path, group_bytes: int
) -> None:
    ticks: list[tuple[int, int]] = []
    out = tmp_path / "f.safetensors"
    make_fisher(out, "key", ROWS, model, {"rows": {"rows": 4}}, lambda *tick: ticks.append(tick), group_bytes)
    found, groups = load_file(out), len(groups_of(model(), group_bytes))
    assert all(torch.equal(found[name], one) for name, one in expected.items())
    assert found.keys() == expected.keys()
    assert ticks == [(i, 4 * groups) for i in range(1, 4 * groups + 1)]
    assert (groups > 3) == (group_bytes < 1 << 20)
    opened = FisherFile(out)
    assert opened.facts == {"rows": {"rows": 4}}
    name = "model.layers.0.mlp.down_proj.weight"
    assert opened.shapes[name] == (32, 48)
    assert opened.means[name] == pytest.approx(float(expected[name].double().mean()), rel=1e-6)
    assert torch.equal(opened.block(name, 7, 99), expected[name].view(-1)[7:99])
    assert [path.name for path in tmp_path.iterdir()] == ["f.safetensors"]


def test_it_goes_on_within_a_group_where_its_sums_were_last_kept(
    expected: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fisher_file, "_KEEP_EVERY", -1.0)
    out, ticks = tmp_path / "f.safetensors", []

    def told(done: int, total: int) -> None:
        ticks.append(done)
        if done == 6:  # of 2 groups × 4 rows
            raise KeyboardInterrupt

    half = 4 * sum(p.numel() for p in model().parameters())
    groups = len(groups_of(model(), half))
    assert groups >= 2
    with pytest.raises(KeyboardInterrupt):
        make_fisher(out, "key", ROWS, model, {}, told, half)
    assert not out.exists()
    ticks.clear()
    make_fisher(out, "key", ROWS, model, {}, lambda done, total: ticks.append(done), half)
    assert ticks == list(range(7, 4 * groups + 1))
    found = load_file(out)
    assert all(torch.equal(found[name], one) for name, one in expected.items())
    with pytest.raises(KeyboardInterrupt):
        make_fisher(tmp_path / "g.safetensors", "key", ROWS, model, {}, told, half)
    with pytest.raises(OutputError, match="an interrupted run of another model"):
        make_fisher(tmp_path / "g.safetensors", "other", ROWS, model, {}, group_bytes=half)


def test_it_is_kept_by_weights_and_rows_and_a_damaged_file_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MERGETOOL_CACHE", str(tmp_path / "cache"))
    one, other = (write_checkpoint(tmp_path / name, random_weights(seed)) for seed, name in enumerate(("one", "other")))
    key, made = fisher_key(one, ROWS, "cpu"), []
    assert len({key, fisher_key(other, ROWS, "cpu"), fisher_key(one, ROWS[:3], "cpu")}) == 3
    first = kept_fisher(key, ROWS, loader(made), {}, lambda done, total: None)
    kept_fisher(key, ROWS, loader(made), {}, lambda done, total: None)
    assert len(made) == 1
    assert first.path == kept_place(key)
    for damage in (b"damaged", (one / "model.safetensors").read_bytes()):
        kept_place(key).unlink()
        kept_place(key).write_bytes(damage)
        with pytest.raises(CheckpointError, match="no Fisher information"):
            FisherFile(kept_place(key))
        assert kept_fisher(key, ROWS, loader(made), {}, lambda done, total: None).means == first.means
    assert [path.suffix for path in (tmp_path / "cache" / "fisher").iterdir()] == [".safetensors"]


def test_a_gradient_that_is_no_number_is_one_line_with_its_name(tmp_path: Path) -> None:
    def broken() -> Any:
        found = model()
        found.model.norm.weight.data[3] = float("inf")
        return found

    with pytest.raises(CheckpointError, match=r"here: the gradient of .* is no finite number"):
        make_fisher(tmp_path / "f", "key", ROWS, broken, {"model": {"source": "here"}})
    assert not (tmp_path / "f").exists()
