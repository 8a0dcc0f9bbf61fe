"""An alignment's directory: one run at a time, and no error removes what was trained."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from mergetool import reading
from mergetool.align.workspace import Workspace, mark_complete
from mergetool.errors import OutputError


def trained(out: Path, fingerprint: str = "this") -> Path:
    """What an interrupted run leaves."""
    with Workspace(out, fingerprint) as work:
        checkpoint = work.training / "checkpoint-2"
        checkpoint.mkdir()
        (checkpoint / "model.safetensors").write_text("hours of work")
        mark_complete(checkpoint)
    return checkpoint / "model.safetensors"


def test_a_run_goes_on_from_its_last_whole_checkpoint(tmp_path: Path) -> None:
    kept = trained(tmp_path / "out")
    with Workspace(tmp_path / "out", "this") as work:
        (work.training / "checkpoint-4").mkdir()  # cut short
        assert work.last_checkpoint() == kept.parent
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.mergetool-partial"]


def test_a_run_without_a_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    with Workspace(tmp_path / "out", "this") as work:
        (work.training / "checkpoint-4").mkdir()
    assert not list(tmp_path.iterdir())


def test_the_result_is_published_alone_and_a_late_run_finds_it(tmp_path: Path) -> None:
    with Workspace(tmp_path / "out", "this") as work:
        work.result.mkdir()
        (work.result / "model.safetensors").write_text("result")
        work.publish()
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["out", "out/model.safetensors"]
    with Workspace(tmp_path / "out", "this") as work:
        assert work.appeared
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("note", "says"),
    [
        ('{"form": 2, "fingerprint": "that"}', "another recipe or other inputs"),
        ('{"fingerprint": "this"}', "earlier version"),
        ("{", "run.json is damaged"),
        ("[]", "run.json is damaged"),
        (None, "of another kind"),
    ],
)
def test_the_work_of_another_run_is_refused_and_stays(tmp_path: Path, note: str | None, says: str) -> None:
    kept = trained(tmp_path / "out")
    run = tmp_path / ".out.mergetool-partial" / "run.json"
    if note is None:
        run.rename(run.with_name("journal.jsonl"))
    else:
        run.write_text(note)
    with pytest.raises(OutputError, match=f"{says}.*--fresh"):
        Workspace(tmp_path / "out", "this").__enter__()
    assert kept.read_text() == "hours of work"
    with Workspace(tmp_path / "out", "this", fresh=True):
        assert not kept.exists()


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.EACCES])
@pytest.mark.parametrize("call", ["reading.opened", "Path.write_bytes", "Path.mkdir"])
def test_a_passing_fault_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    kept = trained(tmp_path / "out")

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        room, name = call.split(".")
        patch.setattr({"Path": Path, "reading": reading}[room], name, fail)
        with pytest.raises(OutputError, match="cannot be written"):
            Workspace(tmp_path / "out", "this").__enter__()
    with Workspace(tmp_path / "out", "this") as work:
        assert work.last_checkpoint() == kept.parent
    assert json.loads((work.directory / "run.json").read_text())["fingerprint"] == "this"
