"""mergetool merge at work: the directory on stdout, what was measured on stderr, and JSON for the next program."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import yaml

from tests.cli.shell import run


def test_merge_prints_the_directory_on_stdout_and_the_rest_on_stderr(recipe: Path, tmp_path: Path) -> None:
    out, err = run("merge", recipe, tmp_path / "out")
    assert out.strip() == str(tmp_path / "out")
    assert "distance to" in err
    assert "kept of" in err
    _, err = run("merge", recipe, tmp_path / "out")
    assert "nothing to do" in err


def test_merge_json_is_the_manifest(recipe: Path, tmp_path: Path) -> None:
    out, _ = run("merge", recipe, tmp_path / "out", "--json", "--seed", 9)
    assert json.loads(out) == json.loads((tmp_path / "out/mergetool.json").read_text())
    assert json.loads(out)["seed"] == 9


def test_a_dry_run_writes_nothing(recipe: Path, tmp_path: Path) -> None:
    out, _ = run("merge", recipe, tmp_path / "out", "--dry-run")
    assert "bytes_read" in out
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_sweep_makes_a_directory_for_each_value(recipe: Path, tmp_path: Path) -> None:
    out, _ = run("merge", recipe, tmp_path / "out", "--sweep", "density=0.2,0.6")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["density=0.2", "density=0.6"]
    assert len(out.split()) == 2


def test_what_mergekit_is_asked_to_run_it_runs_and_the_user_is_told_in_one_line(
    triple: dict[str, Path], tmp_path: Path
) -> None:
    content = {"merge_method": "nearswap", "base_model": str(triple["sft"]), "parameters": {"t": 0.001},
               "models": [{"model": str(triple["rlhf"])}]}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    out, err = run("merge", tmp_path / "recipe.yaml", tmp_path / "out", "--engine", "mergekit")
    assert out.strip() == str(tmp_path / "out")
    assert err.splitlines()[0] == "mergekit runs this recipe (asked for)"
    assert (tmp_path / "out/model.safetensors").exists() or list((tmp_path / "out").glob("model-*.safetensors"))


def test_ctrl_c_ends_with_130_and_what_is_on_disk_resumes(triple: dict[str, Path], recipe: Path, tmp_path: Path) -> None:
    import signal

    slow = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may start its children with SIGINT ignored
        "from mergetool.merge.combine import TensorMerger\n"
        "real = TensorMerger.run\n"
        "TensorMerger.run = lambda *a: (print('.', flush=True), time.sleep(0.1), real(*a))[2]\n"
        "from mergetool.cli.main import main\n"
        "main()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", slow, "merge", str(recipe), str(tmp_path / "out"), "--threads", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    for _ in range(4):
        child.stdout.readline()
    child.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert time.monotonic() - started < 30
    assert not (tmp_path / "out").exists()
    run("merge", recipe, tmp_path / "out")
