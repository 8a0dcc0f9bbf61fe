"""The command is a shell around `align`: data to stdout, the rest to stderr, and 0, 2 or 130 as exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mergetool.cli.main import app
from tests.align.tiny import recipe_text


def write(folder: Path, triple: Path, **parts: object) -> Path:
    values = recipe_text(triple)
    for key, value in parts.items():
        values[key] = {**values[key], **value} if isinstance(values.get(key), dict) else value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_it_prints_the_directory_and_says_how_much_was_merged(triple, tmp_path) -> None:
    path = write(tmp_path, triple, merging={"method": "ondare", "density": 0.5, "alpha_total": 0.06, "every": 2})
    done = run("align", path, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "out")
    assert "3 merges (every 2) with alpha 0.02: 0.06 of the SFT delta will be merged in all" in done.stderr
    assert "merged: 0.06 of the SFT delta" in done.stderr
    assert (tmp_path / "out" / "training.png").read_bytes().startswith(b"\x89PNG")
    again = run("align", path, tmp_path / "out")
    assert (again.exit_code, again.stdout.strip()) == (0, str(tmp_path / "out"))
    assert "nothing to do" in again.stderr


def test_json_is_all_of_stdout(triple, tmp_path) -> None:
    done = run("align", write(tmp_path, triple, training={"max_steps": 1}), tmp_path / "out", "--json")
    assert json.loads(done.stdout)["steps"] == 1


def test_a_users_mistake_is_one_line_and_exit_code_2(triple, tmp_path) -> None:
    for parts, says in (({"merging": {"methd": "ondare"}}, "did you mean 'method'?"),
                        ({"training": {"learning_rte": 1}}, "did you mean 'learning_rate'?"),
                        ({"data": {"train": "none.jsonl"}}, "no such file")):
        done = run("align", write(tmp_path, triple, **parts), tmp_path / "out")
        assert done.exit_code == 2
        assert says in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_check_finds_the_same_without_training(triple, tmp_path) -> None:
    done = run("check", write(tmp_path, triple), "--json")
    assert done.exit_code == 0, done.output
    assert run("check", write(tmp_path, triple, beta="x")).exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_real_signal_at_any_moment_costs_nothing_but_time(triple, tmp_path, number: int, code: int) -> None:
    path = write(tmp_path, triple, training={"max_steps": 12, "save_steps": 2})
    command = [sys.executable, "-m", "mergetool.cli.main", "align", str(path)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, str(tmp_path / "out")], stderr=subprocess.PIPE, env=surroundings)
    checkpoints = tmp_path / ".out.mergetool-partial" / "training"
    deadline = time.monotonic() + 120
    while not any(checkpoints.glob("checkpoint-*/complete")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert not (tmp_path / "out").exists()
    for out in ("out", "whole"):
        subprocess.run([*command, str(tmp_path / out)], check=True, env=surroundings, capture_output=True, timeout=200)
    weights = [(tmp_path / out / "model.safetensors").read_bytes() for out in ("out", "whole")]
    assert weights[0] == weights[1]
