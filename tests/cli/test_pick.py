"""mergetool pick and init on the embedded models: one command chooses and writes, the other writes what would be compared."""

from __future__ import annotations

import json

import yaml

from tests.cli.shell import refusal, run


def test_pick_writes_a_model_and_says_how_sure_it_is(tmp_path) -> None:
    out = tmp_path / "out"
    tasks = ("--task", "lab:skills_test:nll", "--task", "lab:preferences_test")
    words = ("pick", "lab:sft", "lab:rlhf", *tasks, "--limit", 16, "--write", out)
    stdout, stderr = run(*words)
    assert stdout.splitlines()[-1] == str(out / "model")
    assert (out / "model" / "config.json").exists()
    assert "warning: 16 rows are few to choose on" in stdout
    assert "Runner-up: " in stdout
    assert "less sft" in stdout
    assert "sft is lab:sft" in stderr
    facts = json.loads(run(*words, "--json")[0])
    assert facts["model"] == str(out / "model")
    assert facts["chosen"]["rule"] == "one_standard_error"
    assert facts["ran"] == 0


def test_init_writes_the_study_that_pick_would_run(tmp_path) -> None:
    stdout, _ = run("init", "lab:sft", "lab:rlhf", "--base", "lab:base", "--task", "lab:skills_test")
    assert yaml.safe_load(stdout)["models"] == {"sft": "lab:sft", "rlhf": "lab:rlhf", "base": "lab:base"}
    path = tmp_path / "study.yaml"
    run("init", "lab:sft", "lab:rlhf", "--task", "lab:skills_test", "-o", path)
    assert run("check", path)[0].startswith(f"{path}: a valid study recipe")
    assert "exists" in refusal("init", "lab:sft", "lab:rlhf", "--task", "lab:skills_test", "-o", path)


def test_mistakes_are_told_before_anything_is_loaded(tmp_path) -> None:
    assert "is no time" in refusal("pick", "lab:sft", "lab:rlhf", "--task", "lab:skills_test", "--budget", "soon")
    assert "one model" in refusal("pick", "lab:sft", "--task", "lab:skills_test", "--write", tmp_path / "out")
    assert not (tmp_path / "out").exists()
