"""A calibration works beside its output, alone, and goes on only with what it was begun with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mergetool.activations.artifact import Site
from mergetool.activations.journal import is_whole, workspace, write_group
from mergetool.checkpoint.working_directory import partial_directory
from mergetool.errors import OutputError


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_was_finished_is_there_after_an_error_and_nothing_is_left_after_success(tmp_path: Path) -> None:
    out = tmp_path / "c.safetensors"

    def interrupted() -> None:
        with workspace(out, "abc", False) as work:
            (work / "group").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with workspace(out, "abc", False) as work:
        assert (work / "group").exists()
    assert names(tmp_path) == []


def test_other_inputs_are_refused_until_fresh_and_another_run_at_once_too(tmp_path: Path) -> None:
    out = tmp_path / "c.safetensors"
    with workspace(out, "abc", False) as work:
        (work / "group").write_text("")
        with pytest.raises(OutputError, match="another run is writing it now"), workspace(out, "abc", False):
            pass
        left = work.rename(tmp_path / "left")
        work.mkdir()
    left.rename(work)
    with pytest.raises(OutputError, match="another model or of other rows; run again with --fresh"), workspace(out, "x", False):
        pass
    with workspace(out, "x", True) as work:
        assert names(work) == ["run.json"]


def test_unfinished_work_goes_for_fresh_alone(tmp_path: Path) -> None:
    work = partial_directory(tmp_path / "c.safetensors")
    work.mkdir()
    (work / "group-00001-x.safetensors").write_text("finished")
    for run in (None, "{", "[]", '{"fingerprint": "other"}'):
        if run is not None:
            (work / "run.json").write_text(run)
        with pytest.raises(OutputError, match="run again with --fresh"), workspace(tmp_path / "c.safetensors", "abc", False):
            pass
        assert (work / "group-00001-x.safetensors").read_text() == "finished"
    (work / "run.json").unlink()
    (work / "run.json").mkdir()
    with pytest.raises(OutputError, match=r"run\.json: cannot be read"), workspace(tmp_path / "c.safetensors", "abc", False):
        pass
    assert (work / "group-00001-x.safetensors").read_text() == "finished"


def test_a_group_is_whole_with_the_bytes_that_were_written(tmp_path: Path) -> None:
    maps = SimpleNamespace(sides={}, units=[], constants=[])
    path = tmp_path / "group-00001-x.safetensors"
    write_group(path, maps, iter([("a", Site(3, 2.0, 1, 2, 0.5), {"values": torch.ones(2)})]))  # type: ignore[arg-type]
    assert is_whole(path)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert not is_whole(path)
    assert names(tmp_path) == []  # it is made anew, and nothing else is
