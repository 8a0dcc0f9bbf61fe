"""A calibration works beside its output, alone, and goes on only with what it was begun with."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.activations.journal import workspace
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
