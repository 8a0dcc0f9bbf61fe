"""An interrupted checkpoint is gone on with, believing only what is on the disk; errors remove one's own work alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from mergetool import files
from mergetool.checkpoint import journal
from mergetool.checkpoint.shards import OutTensor
from mergetool.checkpoint.working_directory import partial_directory
from mergetool.checkpoint.writer import CheckpointWriter
from mergetool.errors import OutputError

TENSORS = [OutTensor(name, "F32", (40, 25), 1000) for name in "abcdef"]
SHARD = 8000  # two tensors in each


def write(writer: CheckpointWriter, names: str) -> None:
    for name in names:
        value = torch.arange(1000.0) + ord(name)
        for start in range(0, 1000, 300):
            writer.write(name, start, value[start : start + 300])
        writer.finished(name, {"name": name})


def new(out: Path, **options: object) -> CheckpointWriter:
    return CheckpointWriter(out, TENSORS, "this", **{"shard_bytes": SHARD, **options})  # type: ignore[arg-type]


def interrupted(out: Path, names: str = "abcd") -> Path:
    with new(out) as writer:
        write(writer, names)
    return partial_directory(out)


def completed(out: Path, names: str) -> dict[str, str]:
    with new(out) as writer:
        write(writer, names)
        hashes = writer.complete()
        writer.publish()
    return hashes


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, str]:
    hashes = completed(tmp_path / "whole", "fedcba")
    assert hashes == {p.name: sha256(p.read_bytes()).hexdigest() for p in sorted((tmp_path / "whole").glob("*.safetensors"))}
    return hashes


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda folder: None, "abcd"),
    "a byte of the last tensor of the first shard": (
        lambda folder: flip(folder / "model-00001-of-00003.safetensors", -9),
        "acd",
    ),
    "a shard is gone": (lambda folder: (folder / "model-00002-of-00003.safetensors").unlink(), "ab"),
    "a shard is cut": (lambda folder: os.truncate(folder / "model-00001-of-00003.safetensors", 4500), "acd"),
    "a header": (lambda folder: flip(folder / "model-00001-of-00003.safetensors", 3), "abcd"),
    "the last line of the journal": (lambda folder: os.truncate(folder / "journal.jsonl", size(folder) - 5), "abc"),
}


def size(folder: Path) -> int:
    return (folder / "journal.jsonl").stat().st_size


@pytest.mark.parametrize(("damage", "left"), DAMAGE.values(), ids=DAMAGE.keys())
def test_what_is_damaged_is_made_anew_and_the_rest_is_kept(tmp_path: Path, whole: dict, damage: Callable, left: str) -> None:
    damage(interrupted(tmp_path / "out"))
    with new(tmp_path / "out") as writer:
        assert "".join(writer.reports) == left
        write(writer, "".join(name for name in "abcdef" if name not in left))
        assert writer.complete() == whole
        writer.publish()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "whole"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [*whole, "model.safetensors.index.json"]


def test_a_tensor_whose_blocks_came_out_of_order_is_not_believed(tmp_path: Path) -> None:
    with new(tmp_path / "out") as writer:
        writer.write("a", 500, torch.ones(500))
        writer.write("a", 0, torch.ones(500))
        writer.finished("a", {})
    with new(tmp_path / "out") as writer:
        assert not writer.reports


def test_the_work_of_another_fingerprint_shard_size_or_other_inputs_is_refused_and_stays(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "out")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    for other in (
        CheckpointWriter(tmp_path / "out", TENSORS, "that", shard_bytes=SHARD),
        new(tmp_path / "out", shard_bytes=4000),
        new(tmp_path / "out", same_inputs=lambda inputs: False),
    ):
        with pytest.raises(OutputError, match="--fresh"):
            other.__enter__()
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    with new(tmp_path / "out", fresh=True) as writer:
        assert not writer.reports


@pytest.mark.parametrize("name", ["run.json", "journal.jsonl"])
def test_an_alignments_work_and_a_damaged_journal_are_refused_and_stay(tmp_path: Path, name: str) -> None:
    folder = partial_directory(tmp_path / "out")
    folder.mkdir()
    (folder / name).write_text("{}")
    (folder / "checkpoint").write_text("hours of work")
    with pytest.raises(OutputError, match="--fresh"):
        new(tmp_path / "out").__enter__()
    assert (folder / "checkpoint").read_text() == "hours of work"


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize("call", ["read_at", "write_at", "write_whole"])
def test_an_error_while_opening_removes_nothing_that_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    interrupted(tmp_path / "out")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(journal if call == "write_whole" else files, call, fail)
        with pytest.raises(OutputError):
            new(tmp_path / "out").__enter__()
    with new(tmp_path / "out") as writer:
        assert "".join(writer.reports) == "abcd"


def test_an_error_while_opening_leaves_nothing_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "make_room", fail)
    with pytest.raises(OutputError, match=r"the disk is full; [\d,]+ bytes"):
        new(tmp_path / "out").__enter__()
    assert not list(tmp_path.iterdir())


def test_discarding_removes_ones_own_work_and_not_an_earlier_runs(tmp_path: Path) -> None:
    interrupted(tmp_path / "out", "ab")
    with new(tmp_path / "out") as writer:
        write(writer, "cd")
        writer.discard()
    with new(tmp_path / "out") as writer:
        assert "".join(writer.reports) == "ab"
    with new(tmp_path / "other") as writer:
        write(writer, "cd")
        writer.discard()
    assert [p.name for p in tmp_path.iterdir()] == [".out.mergetool-partial"]


def test_a_name_that_is_taken_at_the_last_moment_loses_no_work(tmp_path: Path) -> None:
    with new(tmp_path / "out") as writer:
        write(writer, "abcdef")
        writer.complete()
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("mine")
        with pytest.raises(OutputError):
            writer.publish()
    (tmp_path / "out" / "mine").unlink()
    with new(tmp_path / "out") as writer:
        assert "".join(writer.reports) == "abcdef"


def test_a_small_file_that_a_kill_cut_is_no_part_of_the_result(tmp_path: Path, whole: dict) -> None:
    (interrupted(tmp_path / "out") / ".mergetool.json.77-140.part").write_text("{")
    assert completed(tmp_path / "out", "ef") == whole
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}
