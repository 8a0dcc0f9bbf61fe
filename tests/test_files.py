"""What differs between systems is done another way where a system lacks it, and the bytes are the same."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mergetool import files
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
from tests.helpers import write_triple

MERGE = """
import os, sys
for name in ("posix_fallocate", "posix_fadvise", "sched_getaffinity", "preadv", "pwrite", "fdatasync"):
    delattr(os, name)
sys.modules["fcntl"] = None
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
models = [{"model": path, "parameters": {"weight": 0.5}} for path in sys.argv[2:]]
merge_to_directory(plan_merge(MergeRecipe(merge_method="linear", models=models)), sys.argv[1], shard_bytes=20_000)
"""


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="nothing to hide")
def test_a_system_without_fcntl_and_posix_calls_merges_to_the_same_bytes(tmp_path: Path) -> None:
    triple = write_triple(tmp_path / "in")
    names = [str(triple[name]) for name in ("sft", "rlhf")]
    done = subprocess.run([sys.executable, "-c", MERGE, str(tmp_path / "out"), *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    models = [{"model": name, "parameters": {"weight": 0.5}} for name in names]
    plan = plan_merge(MergeRecipe(merge_method="linear", models=models))
    merge_to_directory(plan, tmp_path / "here", shard_bytes=20_000)
    shards = sorted((tmp_path / "here").glob("*.safetensors"))
    assert len(shards) > 1
    assert all(shard.read_bytes() == (tmp_path / "out" / shard.name).read_bytes() for shard in shards)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["here", "in", "out"]


def test_no_other_file_calls_what_differs_between_systems() -> None:
    calls = ("fcntl", "posix_f", "sched_getaffinity", "pwrite", "preadv", "fdatasync", "flock(", "boot_id", "msvcrt")
    package = Path(files.__file__).parent
    for path in package.rglob("*.py"):
        found = [call for call in calls if call in path.read_text()]
        assert not found or path.name == "files.py", f"{path}: {found}"


@pytest.mark.parametrize("hidden", [(), ("pwrite", "preadv")])
def test_threads_write_and_read_at_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: tuple) -> None:
    for name in hidden:
        monkeypatch.delattr(os, name)
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    parts = [bytes([at]) * 5000 for at in range(16)]
    threads = [
        threading.Thread(target=files.write_at, args=(descriptor, memoryview(part), at * 5000)) for at, part in enumerate(parts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    buffer = memoryview(bytearray(5000))
    for at in (3, 0, 15):
        assert files.read_at(descriptor, buffer, at * 5000) == 5000
        assert bytes(buffer) == parts[at]
    assert files.read_at(descriptor, buffer, 16 * 5000) == 0
    os.close(descriptor)


def test_a_small_file_is_written_whole_or_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write_whole(path, "before")

    def refuse(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no"):
        files.write_whole(path, "after")
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["file"]


def test_a_lock_is_held_by_one_and_leaves_no_file(tmp_path: Path) -> None:
    one, other = files.Lock(tmp_path / "lock"), files.Lock(tmp_path / "lock")
    assert one.take(0)
    assert not other.take(0)
    one.release()
    one.release()
    assert not list(tmp_path.iterdir())
    assert other.take(0)
    other.release()


def test_one_who_waited_for_a_lock_whose_file_was_removed_does_not_share_it_with_the_next(tmp_path: Path) -> None:
    """The waiter has the removed file open when it gets the lock; a third makes the name anew."""
    path = tmp_path / "lock"
    holder, waiter, third = (files.Lock(path) for _ in range(3))
    for _ in range(20):
        assert holder.take(0)
        got: list[bool] = []
        thread = threading.Thread(target=lambda got=got: got.append(waiter.take(5)))
        thread.start()
        holder.release()
        got_third = third.take(0)
        thread.join(0 if got_third else 10)
        assert not (got_third and got == [True])
        third.release()
        thread.join(10)
        assert got == [True]
        waiter.release()
    assert not path.exists()
