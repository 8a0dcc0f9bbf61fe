"""A run that waits for another finds what that one has made."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest
import torch

from mergetool import files
from mergetool.checkpoint import working_directory
from mergetool.errors import OutputError
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
from mergetool.merge.engine import already_made
from mergetool.merge.plan import Plan
from tests.helpers import write_triple


def plan(triple: dict[str, Path], **fields: object) -> Plan:
    models = [{"model": str(triple[name]), "parameters": {"weight": 0.5}} for name in ("sft", "rlhf")]
    return plan_merge(MergeRecipe(**{"merge_method": "linear", "models": models, **fields}))  # type: ignore[arg-type]


@pytest.mark.parametrize("same", [True, False], ids=["the same merge", "another"])
def test_what_appeared_while_a_run_waited_is_done_or_another_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    triple, out = write_triple(tmp_path / "in", torch.bfloat16), tmp_path / "out"
    merge_to_directory(plan(triple) if same else plan(triple, out_dtype="float32"), tmp_path / "theirs")
    monkeypatch.setattr(working_directory, "_PATIENCE", 30.0)
    lock, found = files.Lock(working_directory.lock_file(out)), []
    assert lock.take(0)

    def wait() -> None:
        try:
            found.append(merge_to_directory(plan(triple), out))
        except OutputError as error:
            found.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.3)
    shutil.copytree(tmp_path / "theirs", tmp_path / "copy")
    (tmp_path / "copy").rename(out)
    lock.release()
    waiting.join()
    if same:
        assert found[0]["outputs_sha256"]
        assert already_made(plan(triple), out)
    else:
        assert "another result" in str(found[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out", "theirs"]


def test_one_output_that_another_run_writes_stops_all_and_leaves_nothing_of_the_others(tmp_path: Path) -> None:
    from mergetool.merge.engine import merge_to_directories

    triple = write_triple(tmp_path / "in", torch.bfloat16)
    with working_directory.WorkingDirectory(tmp_path / "b"), pytest.raises(OutputError, match="b: another run is writing"):
        merge_to_directories([plan(triple), plan(triple, out_dtype="float32")], [tmp_path / "a", tmp_path / "b"])
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
