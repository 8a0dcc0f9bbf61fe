"""What has the output's name already is this very result, whole, or it is left untouched and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.checkpoint.manifest import Manifest
from mergetool.checkpoint.output import check_output, files_beside, weight_hashes, what_is_missing
from mergetool.errors import OutputError
from tests.helpers import random_weights, write_checkpoint


@pytest.fixture
def out(tmp_path: Path) -> Path:
    place = write_checkpoint(tmp_path / "out", random_weights(0), shards=2)
    manifest = Manifest(
        "merge", {}, fingerprint="this", outputs_sha256=weight_hashes(place), files=files_beside(place), warnings=["told"]
    )
    manifest.write(place)
    return place


def test_the_same_and_whole_is_done_and_anything_else_is_another_result(out: Path) -> None:
    assert check_output(out, lambda manifest: manifest.fingerprint == "this")
    for same in (None, lambda manifest: False):
        with pytest.raises(OutputError, match="another result"):
            check_output(out, same)


def test_the_index_belongs_to_a_result_and_cards_and_logs_do_not(out: Path) -> None:
    (out / "README.md").write_text("")
    (out / "metrics.jsonl").write_text("")
    assert files_beside(out) == [
        "config.json", "generation_config.json", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_what_is_missing_is_named(out: Path) -> None:
    assert what_is_missing(out, Manifest.read(out)) == ""
    for name, said in (
        ("model-00002-of-00002.safetensors", "model-00002-of-00002.safetensors: no such weight file"),
        ("tokenizer.json", "tokenizer.json is missing"),
    ):
        kept = (out / name).read_bytes()
        (out / name).unlink()
        assert said in what_is_missing(out, Manifest.read(out))
        (out / name).write_bytes(kept)


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not a directory one can write to"):
        check_output(tmp_path / "file" / "out")
    assert not check_output(tmp_path / "new" / "out")


def test_the_name_is_judged_as_the_rename_at_the_end_judges_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path / "real")
    for place, told in (("link", "is a link;"), ("dangling", "is a link to nothing"), ("real/..", "has no name of its own")):
        with pytest.raises(OutputError, match=told):
            check_output(tmp_path / place)
    for place, told in ((Path(), "has no name of its own"), (Path("/proc"), "another file system is mounted")):
        with pytest.raises(OutputError, match=told):
            check_output(place)
    assert (tmp_path / "link").readlink() == Path("real")
