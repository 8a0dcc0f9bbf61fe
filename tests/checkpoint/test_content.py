"""Hashes follow every byte, whatever the time stamp says; what has not changed is not read again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from xxhash import xxh3_128

from mergetool.checkpoint import content
from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.reader import Reader
from mergetool.errors import CheckpointError
from tests.helpers import random_weights, write_checkpoint


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGETOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "_LARGE", 0)
    monkeypatch.setattr(content, "_memory", {})


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model", random_weights(0), torch.bfloat16) / "model.safetensors"


def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the files had been written long ago."""
    monkeypatch.setattr(content, "_SETTLED", -(10**18))


def test_the_hash_of_bytes_is_xxh3_and_sha256(weights: Path) -> None:
    import hashlib

    assert content.bytes_hash(weights) == xxh3_128(weights.read_bytes()).hexdigest()
    assert content.sha256_of(weights) == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_every_byte_of_a_weight_file_counts(weights: Path) -> None:
    raw = bytearray(weights.read_bytes())
    before = content.weights_hash(weights)
    for at in (len(raw) - 1, len(raw) // 2, len(raw) - 20_000):
        raw[at] ^= 1
        weights.write_bytes(raw)
        assert content.weights_hash(weights) != before
        raw[at] ^= 1
    weights.write_bytes(raw)
    assert content.weights_hash(weights) == before


def test_new_bytes_under_an_old_time_stamp_are_seen(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time.sleep(0.02)  # a tick of the file system's clock lies between
    settled(monkeypatch)
    before, times = content.weights_hash(weights), weights.stat()
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    time.sleep(0.02)
    weights.write_bytes(raw)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert weights.stat().st_mtime_ns == times.st_mtime_ns
    assert content.weights_hash(weights) != before


def test_what_has_not_changed_is_not_read_again_in_this_process_or_the_next(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(monkeypatch)
    found = content.weights_hash(weights)
    monkeypatch.setattr(content, "_joined", lambda *_: pytest.fail("read again"))
    assert content.weights_hash(weights) == found
    content._memory.clear()  # another process
    assert content.weights_hash(weights) == content.known_weights_hash(weights) == found


def test_a_file_that_has_just_changed_is_not_kept(weights: Path) -> None:
    weights.touch()
    content.weights_hash(weights)
    assert content.known_weights_hash(weights) is None


@pytest.mark.parametrize("damage", ["not JSON", "[]", '{"path": "elsewhere", "stamp": [], "hash": "0"}'])
def test_a_cache_that_cannot_be_read_is_done_without(weights: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    settled(monkeypatch)
    found = content.weights_hash(weights)
    content._memory.clear()
    (entry,) = (content.cache_directory("hashes")).iterdir()
    entry.write_text(damage)
    assert content.weights_hash(weights) == found


def test_a_cache_that_cannot_be_written_is_done_without(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(monkeypatch)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MERGETOOL_CACHE", str(tmp_path / "file"))
    assert content.weights_hash(weights)


@pytest.mark.parametrize("blocks", ["all in order", "some", "none", "backwards", "twice"])
def test_what_was_seen_in_blocks_is_what_is_read_from_the_file(weights: Path, blocks: str) -> None:
    reader, seen = Reader(read_layout(weights.parent)), content.Seen()
    reader.watch = seen.see
    stamp = content.stamp_of(weights)
    for at, (name, info) in enumerate(reader.layout.tensors.items()):
        spans = [(start, min(start + 100, info.numel)) for start in range(0, info.numel, 100)]
        if blocks == "none" or (blocks == "some" and at % 2):
            continue
        for start, stop in spans[::-1] if blocks == "backwards" else spans * (1 + (blocks == "twice")):
            reader.block(name, start, stop)
    assert seen.weights_hash(weights, stamp) == content.weights_hash(weights)


def test_a_file_that_changed_after_it_was_seen_is_an_error(weights: Path) -> None:
    seen, stamp = content.Seen(), content.stamp_of(weights)
    save_file(load_file(weights), weights, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="changed while it was read"):
        seen.weights_hash(weights, stamp)


def test_many_processes_may_keep_at_once(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(monkeypatch)
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            for _ in range(50):
                content._memory.clear()
                content.weights_hash(weights)
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert [path.suffix for path in content.cache_directory("hashes").iterdir()] == [".json"]
