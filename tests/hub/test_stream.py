"""--low-disk: the bytes of a plain merge, and never more on the disk than one shard of each model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tests.helpers import random_weights, write_checkpoint
from tests.hub.program import Program
from tests.hub.server import Fault, StandIn

SHARDS = {"base": 4, "sft": 4, "rlhf": 3}


@pytest.fixture(scope="module")
def sizes(hub: StandIn, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """big/base, big/sft, big/rlhf in shards, in the order of the layers; returns each one's largest shard, bytes."""
    config = {"num_hidden_layers": 6, "hidden_size": 64, "intermediate_size": 96}
    root, near, found = tmp_path_factory.mktemp("big"), None, {}
    for seed, (name, count) in enumerate(SHARDS.items()):
        near = random_weights(seed, near=near, **config)
        ordered = list(near)
        part = -(-len(ordered) // count)  # as save_pretrained cuts: neighbours together
        order = [ordered[i * part + j] for j in range(part) for i in range(count) if i * part + j < len(ordered)]
        where = write_checkpoint(root / name, {n: near[n] for n in order}, torch.float32, count, **config)
        hub.store.add(f"big/{name}", where)
        found[name] = max(p.stat().st_size for p in where.glob("*.safetensors"))
    return found


@pytest.fixture
def recipe(sizes: dict[str, int], tmp_path: Path) -> Path:
    models = [{"model": f"big/{m}", "parameters": {"weight": 0.5, "density": 0.5}} for m in ("sft", "rlhf")]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"merge_method": "dare_ties", "base_model": "big/base", "models": models}))
    return path


@pytest.fixture(autouse=True)
def empty_cache(mergetool: Program) -> None:
    shutil.rmtree(mergetool.home / "hub", ignore_errors=True)


def in_use(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def test_one_shard_of_each_model_is_enough_and_the_bytes_are_the_same(
    hub: StandIn, mergetool: Program, recipe: Path, sizes: dict[str, int], tmp_path: Path
) -> None:
    inputs = tmp_path / ".streamed.mergetool-partial" / "inputs"
    peaks = []
    hub.watch = lambda path, size: peaks.append(in_use(inputs) + size)  # what lies there, and what is coming
    try:
        with hub.counted() as asked:
            assert mergetool("merge", recipe, tmp_path / "streamed", "--low-disk").code == 0
    finally:
        hub.watch = None
    assert max(peaks) <= sum(sizes.values()) + 20_000  # the client's notes lie beside
    assert len(peaks) > sum(SHARDS.values()) / 2
    fetched = [one.path for one in asked if one.weights]
    assert len(fetched) <= sum(SHARDS.values()) + 3  # cut at other places, a shard may be needed once more
    assert not list((mergetool.home / "hub").rglob("*.safetensors")), "the user's cache holds no weights"
    assert not list(tmp_path.glob(".*partial"))
    assert not (tmp_path / "streamed" / "inputs").exists()
    assert mergetool("merge", recipe, tmp_path / "plain").code == 0
    same_bytes(tmp_path / "streamed", tmp_path / "plain")


def same_bytes(one: Path, other: Path) -> None:
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert (one / "mergetool.json").read_text() == (other / "mergetool.json").read_text()


def test_after_a_failure_the_same_command_goes_on_with_what_is_missing(
    hub: StandIn, mergetool: Program, recipe: Path, tmp_path: Path
) -> None:
    seen = []

    def break_later(path: str, size: int) -> None:
        seen.append(path)
        if len(seen) == 5:
            hub.faults.append(Fault(r"^GET .*safetensors", "broken", times=99))

    hub.watch = break_later
    try:
        with hub.counted():
            result = mergetool("merge", recipe, tmp_path / "out", "--low-disk")
    finally:
        hub.watch = None
    assert result.code == 2, result
    assert "the Hub answers 500" in result.line
    journal = tmp_path / ".out.mergetool-partial" / "journal.jsonl"
    assert len(journal.read_text().splitlines()) > 10  # its head, and the tensors that are done
    with hub.counted() as asked:
        assert mergetool("merge", recipe, tmp_path / "out", "--low-disk").code == 0
    assert len([one for one in asked if one.weights]) < sum(SHARDS.values())
    assert mergetool("merge", recipe, tmp_path / "plain").code == 0
    same_bytes(tmp_path / "out", tmp_path / "plain")


def test_what_needs_every_tensor_at_once_is_refused(mergetool: Program, recipe: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(recipe.read_text()) | {"merge_method": "ties", "parameters": {"scope": "model"}}
    recipe.write_text(yaml.safe_dump(content))
    result = mergetool("merge", recipe, tmp_path / "out", "--low-disk")
    assert result.code == 2
    assert "leave out --low-disk" in result.line
    assert not list(tmp_path.glob("*out*"))
