"""A merge is known by what its inputs hold; it is done only where all of it is there."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mergetool.checkpoint import content
from mergetool.checkpoint.working_directory import partial_directory
from mergetool.errors import CheckpointError, OutputError
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
from mergetool.merge.combine import TensorMerger
from tests.helpers import write_triple

NAMES = ("sft", "rlhf")


@pytest.fixture
def triple(tmp_path: Path) -> dict[str, Path]:
    return write_triple(tmp_path / "in", torch.bfloat16)


def merge(triple: dict[str, Path], out: Path, **options: object) -> dict:
    models = [{"model": str(triple[name]), "parameters": {"weight": 0.5}} for name in NAMES]
    return merge_to_directory(plan_merge(MergeRecipe(merge_method="linear", models=models)), out, **options)  # type: ignore[arg-type]


def flip_under_an_old_time_stamp(model: Path) -> None:
    path = model / "model.safetensors"
    times, raw = path.stat(), bytearray(path.read_bytes())
    raw[-1] ^= 1
    time.sleep(0.02)  # a tick of the file system's clock
    path.write_bytes(raw)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def edit(name: str) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        found = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps({**found, "changed": True}))

    return change


CHANGES = {
    "weights under an old time stamp": flip_under_an_old_time_stamp,
    "config": edit("config.json"),
    "generation settings": edit("generation_config.json"),
    "tokenizer settings": edit("tokenizer_config.json"),
    "template": lambda model: (model / "chat_template.jinja").write_text("{{ 1 }}"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_input_makes_another_merge(triple: dict[str, Path], tmp_path: Path, change: Callable) -> None:
    merge(triple, tmp_path / "out")
    change(triple["sft"])
    with pytest.raises(OutputError, match="another result"):
        merge(triple, tmp_path / "out")


def test_copies_and_new_time_stamps_are_the_same_merge(triple: dict[str, Path], tmp_path: Path) -> None:
    first = merge(triple, tmp_path / "out")
    shutil.copytree(triple["sft"], tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(triple["sft"])
    (tmp_path / "copy").rename(triple["sft"])
    os.utime(triple["rlhf"] / "model.safetensors")
    assert merge(triple, tmp_path / "out") == first


def test_a_first_merge_reads_no_weights_to_know_them_and_notes_their_content(
    triple: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(content, "_of_tensor", lambda *_: pytest.fail("read for its hash alone"))
        manifest = merge(triple, tmp_path / "out")
    for one, name in zip(manifest["inputs"], NAMES, strict=True):
        assert one["content"] == {"model.safetensors": content.weights_hash(triple[name] / "model.safetensors")}


SPOILT = {
    "weights": (lambda out: (out / "model.safetensors").unlink(), "no weights|missing"),
    "half of the weights": (lambda out: os.truncate(out / "model.safetensors", 9000), "truncated"),
    "a byte": (lambda out: flip_under_an_old_time_stamp(out), r"model\.safetensors is not what mergetool\.json says"),
    "the tokenizer": (lambda out: (out / "tokenizer.json").unlink(), r"tokenizer\.json is missing"),
    "the config": (lambda out: (out / "config.json").unlink(), r"no config\.json"),
}


@pytest.mark.parametrize(("spoil", "says"), SPOILT.values(), ids=SPOILT.keys())
def test_a_result_that_is_not_whole_is_not_done_and_says_why(
    triple: dict[str, Path], tmp_path: Path, spoil: Callable, says: str
) -> None:
    out = tmp_path / "out"
    merge(triple, out)
    spoil(out)
    left = sorted(p.name for p in out.iterdir())
    with pytest.raises(OutputError, match=f"not whole any more: .*({says}).*remove it"):
        merge(triple, out)
    assert sorted(p.name for p in out.iterdir()) == left


def test_a_result_of_an_earlier_version_is_left_and_says_so(triple: dict[str, Path], tmp_path: Path) -> None:
    old = merge(triple, tmp_path / "out")
    for key in ("schema", "plan", "files"):
        del old[key]
    (tmp_path / "out" / "mergetool.json").write_text(json.dumps(old))
    with pytest.raises(OutputError, match="earlier version"):
        merge(triple, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").exists()


class Stop(BaseException):
    """Stands for kill -9."""


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> list[str]:
    real, ran = TensorMerger.run, []

    def run(self: TensorMerger, tensors: list, emits: list, whole: list) -> list:
        if len(ran) == count:
            raise error
        ran.append(tensors[0].name)
        return real(self, tensors, emits, whole)

    monkeypatch.setattr(TensorMerger, "run", run)
    return ran


def test_an_interrupted_merge_goes_on_only_with_the_same_inputs(
    triple: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(5, patch, Stop())
        with pytest.raises(Stop):
            merge(triple, tmp_path / "out", threads=1)
    journal = partial_directory(tmp_path / "out") / "journal.jsonl"
    before = journal.read_bytes()
    flip_under_an_old_time_stamp(triple["sft"])
    with pytest.raises(OutputError, match="inputs have changed since; run again with --fresh"):
        merge(triple, tmp_path / "out")
    assert journal.read_bytes() == before
    flip_under_an_old_time_stamp(triple["sft"])  # as it was, but nobody can know
    with pytest.raises(OutputError, match="--fresh"):
        merge(triple, tmp_path / "out")
    assert merge(triple, tmp_path / "out", fresh=True) == merge(triple, tmp_path / "out")


def test_known_content_lets_a_copy_go_on(triple: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_SETTLED", -(10**18))
    for name in NAMES:
        content.weights_hash(triple[name] / "model.safetensors")
    with monkeypatch.context() as patch:
        stop_after(5, patch, Stop())
        with pytest.raises(Stop):
            merge(triple, tmp_path / "out", threads=1)
    (triple["sft"] / "model.safetensors").chmod(0o600)
    with monkeypatch.context() as patch:
        ran = stop_after(10**6, patch, Stop())
        merge(triple, tmp_path / "out", threads=1)
    assert len(ran) == 29 - 5


@pytest.mark.parametrize(("passing", "left"), [(True, 5), (False, 0)], ids=["a passing fault", "bad input"])
def test_a_passing_fault_keeps_what_is_finished(
    triple: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passing: bool, left: int
) -> None:
    error = CheckpointError("model.safetensors: cannot be mapped (Too many open files)")
    error.__cause__ = OSError(24, "Too many open files") if passing else None
    with monkeypatch.context() as patch:
        stop_after(5, patch, error)
        with pytest.raises(CheckpointError):
            merge(triple, tmp_path / "out", threads=1)
    assert partial_directory(tmp_path / "out").exists() == passing
    with monkeypatch.context() as patch:
        ran = stop_after(10**6, patch, error)
        merge(triple, tmp_path / "out", threads=1)
    assert len(ran) == 29 - left
