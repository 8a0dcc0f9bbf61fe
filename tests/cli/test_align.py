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

from mergetool.align import align, load_align_recipe
from mergetool.cli.main import app
from tests.align.tiny import make_pairs, make_triple, recipe_text


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with base/, sft/, train.jsonl and eval.jsonl; not to be written to."""
    folder = tmp_path_factory.mktemp("triple")
    make_triple(folder)
    make_pairs(folder / "train.jsonl", 24)
    make_pairs(folder / "eval.jsonl", 6, start=100)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGETOOL_CACHE", str(tmp_path_factory.mktemp("cache")))


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
    for parts, says in (
        ({"merging": {"methd": "ondare"}}, "did you mean 'method'?"),
        ({"training": {"learning_rte": 1}}, "did you mean 'learning_rate'?"),
        ({"data": {"train": "none.jsonl"}}, "no such file"),
    ):
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
def test_a_run_that_is_killed_and_then_interrupted_ends_with_the_weights_of_one_left_alone(triple, tmp_path) -> None:
    path = write(tmp_path, triple, training={"max_steps": 40, "save_steps": 2})
    training = tmp_path / ".out.mergetool-partial" / "training"

    def start_and_signal(number: int) -> int:
        """Waits for a checkpoint that was not there before, then sends the signal."""
        before = set(training.glob("checkpoint-*/complete"))
        process = subprocess.Popen(
            [sys.executable, "-m", "mergetool", "align", str(path), str(tmp_path / "out")],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while set(training.glob("checkpoint-*/complete")) <= before and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(number)
        process.wait(timeout=100)
        assert not (tmp_path / "out").exists()
        return process.returncode

    assert start_and_signal(signal.SIGKILL) == -signal.SIGKILL
    assert start_and_signal(signal.SIGINT) == 130
    assert align(load_align_recipe(path), tmp_path / "out").resumed_from
    align(load_align_recipe(path), tmp_path / "whole")
    weights = [(tmp_path / out / "model.safetensors").read_bytes() for out in ("out", "whole")]
    assert weights[0] == weights[1]


def test_values_of_the_recipe_are_set_on_the_command_line(triple, tmp_path) -> None:
    path = write(tmp_path, triple)
    done = run(
        "align", path, tmp_path / "out", "--set", "training.max_steps=2", "--set", "training.learning_rate=1e-5", "--json"
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["steps"] == 2
    recipe = json.loads((tmp_path / "out" / "mergetool.json").read_text())["recipe"]
    assert recipe["training"]["learning_rate"] == 1e-5
    wrong = run("align", path, tmp_path / "other", "--set", "training.max_step=2")
    assert wrong.exit_code == 2
    assert "did you mean 'max_steps'" in wrong.stderr
