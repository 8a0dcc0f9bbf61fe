"""One run at a time has a working directory, until the result has its name; what others have made is left to them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mergetool.checkpoint.working_directory import Appeared, WorkingDirectory, lock_file, partial_directory
from mergetool.errors import OutputError


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_the_lock_is_held_until_the_result_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mergetool import files

    real, seen = files.give_name, []

    def give_name(directory: Path, name: Path) -> None:
        real(directory, name)
        seen.append(lock_file(tmp_path / "out").exists())
        with pytest.raises(OutputError, match="another run"):
            WorkingDirectory(tmp_path / "out").__enter__()

    monkeypatch.setattr(files, "give_name", give_name)
    with WorkingDirectory(tmp_path / "out") as work:
        (work.directory / "weights").write_text("w")
        work.publish(work.directory)
    assert seen == [True]
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["weights"]


def test_one_that_waited_finds_the_result(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "weights").write_text("w")
    with pytest.raises(Appeared):
        WorkingDirectory(tmp_path / "out").__enter__()
    assert names(tmp_path) == ["out"]


def test_a_result_in_the_directory_is_published_alone(tmp_path: Path) -> None:
    with WorkingDirectory(tmp_path / "out") as work:
        (work.directory / "result").mkdir()
        (work.directory / "result" / "weights").write_text("w")
        (work.directory / "training").mkdir()
        work.publish(work.directory / "result")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["weights"]


def test_it_knows_whether_it_made_the_directory(tmp_path: Path) -> None:
    with WorkingDirectory(tmp_path / "out") as first:
        assert first.made
        (first.directory / "journal.jsonl").write_text("")
    with WorkingDirectory(tmp_path / "out") as second:
        assert not second.made
        assert second.holds_work()
        second.empty()
        assert second.made
        assert not second.holds_work()


@pytest.mark.parametrize("obstacle", ["a directory", "a link", "no rights"])
def test_a_lock_that_cannot_be_opened_is_told_and_removes_nothing(tmp_path: Path, obstacle: str) -> None:
    out = tmp_path / "out"
    partial_directory(out).mkdir()
    (partial_directory(out) / "journal.jsonl").write_text("finished work")
    lock = lock_file(out)
    if obstacle == "a directory":
        lock.mkdir()
    elif obstacle == "a link":
        lock.symlink_to(tmp_path / "elsewhere")
    else:
        lock.touch(0o000)
        if os.access(lock, os.W_OK):
            pytest.skip("root may write everywhere")
    with pytest.raises(OutputError, match="mergetool-lock"):
        WorkingDirectory(out).__enter__()
    assert (partial_directory(out) / "journal.jsonl").read_text() == "finished work"


def test_too_many_open_files_are_told_and_remove_nothing(tmp_path: Path) -> None:
    import resource

    out = tmp_path / "out"
    partial_directory(out).mkdir()
    (partial_directory(out) / "journal.jsonl").write_text("finished work")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OutputError, match=r"Too many open files.*ulimit"):
            WorkingDirectory(out).__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (partial_directory(out) / "journal.jsonl").read_text() == "finished work"


def test_what_cannot_be_locked_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = partial_directory(tmp_path / "out")
    work.mkdir()
    (work / "journal.jsonl").write_text("finished")
    lock_file(tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        WorkingDirectory(tmp_path / "out").__enter__()
    lock_file(tmp_path / "out").rmdir()
    with monkeypatch.context() as patch:
        import fcntl

        def none_left(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        patch.setattr(fcntl, "flock", none_left)
        with pytest.raises(OutputError, match="choose a place on a file system that knows locks"):
            WorkingDirectory(tmp_path / "out").__enter__()
    assert (work / "journal.jsonl").read_text() == "finished"


def test_unfinished_work_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    partial_directory(tmp_path / "out").symlink_to("elsewhere")
    with pytest.raises(OutputError, match="is a link"):
        WorkingDirectory(tmp_path / "out").__enter__()
    assert names(tmp_path / "elsewhere") == []
