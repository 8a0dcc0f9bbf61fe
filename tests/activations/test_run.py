"""`calibrate`: resumable, made once, the same however it came about; bad input is one line and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mergetool.activations import Calibration, calibrate
from mergetool.activations import run as module
from mergetool.errors import CheckpointError, DataError, OutputError
from tests.helpers import random_weights, write_checkpoint

WORDS = [" ".join(f"w{(7 * i + j * j) % 60}" for j in range(3 + i % 5)) for i in range(24)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "sft", random_weights(0))


def rows(path: Path, *found: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return rows(tmp_path / "rows.jsonl", *({"text": text} for text in WORDS))


def test_forms_of_rows_that_are_the_same_text_are_the_same_calibration(model: Path, tmp_path: Path) -> None:
    texts = rows(tmp_path / "texts.jsonl", *({"prompt": text} for text in WORDS))
    chats = rows(tmp_path / "chats.jsonl", *({"prompt": [{"role": "user", "content": text}]} for text in WORDS))
    one, other = (calibrate(model, source, tmp_path / source.stem).calibration for source in (texts, chats))
    assert one.facts["rows"]["identity"] == other.facts["rows"]["identity"]
    assert one.sites == other.sites
    assert one.facts["rows"]["rows"] == 24


def test_the_second_call_finds_it_done_and_another_one_is_refused(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.safetensors"
    assert not calibrate(model, data, out).already_done
    before = out.stat()
    assert calibrate(model, data, out, batch_size=1, group_bytes=1).already_done
    assert out.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(OutputError, match="of another model, of other rows or at another rank"):
        calibrate(model, data, out, rank=5)
    calibrate(model, data, out, rank=5, fresh=True)
    assert Calibration.load(out).facts["rank"] == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.safetensors", "rows.jsonl"]


_KILLED = """
import sys
from mergetool.activations import calibrate
from mergetool.activations import run
from pathlib import Path
real, groups = run.write_group, []
def slow(*given):
    real(*given)
    groups.append(1)
    if len(groups) == 3:
        print("three", flush=True)
        import time; time.sleep(60)
run.write_group = slow
calibrate(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), group_bytes=30_000)
"""


def test_a_killed_run_goes_on_and_comes_to_the_same_bytes(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "c.safetensors", tmp_path / "whole.safetensors"
    child = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(model), str(data), str(out)],
        stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "three\n"
    child.kill()
    child.wait()
    assert not out.exists()
    made, real = [], module.write_group
    monkeypatch.setattr(module, "write_group", lambda *given: made.append(given[0].name) or real(*given))
    calibrate(model, data, out, group_bytes=30_000)
    resumed = len(made)
    calibrate(model, data, whole, group_bytes=30_000)
    assert len(made) - resumed == resumed + 3
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.safetensors", "rows.jsonl", "whole.safetensors"]


def test_bad_input_is_one_line_before_weights_are_read(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_model", lambda *_: pytest.fail("weights were read"))
    out = tmp_path / "c.safetensors"
    foreign = rows(tmp_path / "foreign.jsonl", {"text": "nothing of this is a word it knows"})
    with pytest.raises(DataError, match="knows only 0% of the words"):
        calibrate(model, foreign, out)
    with pytest.raises(DataError, match="no rows"):
        calibrate(model, rows(tmp_path / "empty.jsonl"), out)
    with pytest.raises(DataError, match="row 1"):
        calibrate(model, rows(tmp_path / "odd.jsonl", {"label": 1}), out)
    small = write_checkpoint(tmp_path / "small", random_weights(0, vocab_size=20), vocab_size=20)
    with pytest.raises(DataError, match="the model's embedding has 20 rows"):
        calibrate(small, data, out)
    with pytest.raises(CheckpointError):
        calibrate(tmp_path / "nowhere", data, out)
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists and is no calibration"):
        calibrate(model, data, out)
    assert out.read_text() == "mine"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_run_in_progress_is_not_disturbed(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.safetensors"
    with (
        module.workspace(out, "abc", False),
        pytest.raises(OutputError, match="another run is writing it now"),
    ):
        calibrate(model, data, out)
