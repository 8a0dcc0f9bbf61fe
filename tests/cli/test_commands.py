"""The commands at work: what they print, and where."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mergetool.cli.main import app
from tests.helpers import write_triple


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_triple(tmp_path_factory.mktemp("triple"))


@pytest.fixture
def recipe(triple: dict[str, Path], tmp_path: Path) -> Path:
    models = [{"model": str(triple[m]), "parameters": {"weight": 0.5}} for m in ("sft", "rlhf")]
    content = {"merge_method": "ties", "base_model": str(triple["base"]), "models": models, "parameters": {"density": 0.5}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "recipe.yaml"


def run(*words: object) -> tuple[str, str]:
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


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


def test_what_is_not_ours_goes_to_mergekit_and_the_user_is_told_in_one_line(triple: dict[str, Path], tmp_path: Path) -> None:
    content = {"merge_method": "nearswap", "base_model": str(triple["sft"]), "parameters": {"t": 0.001},
               "models": [{"model": str(triple["rlhf"])}]}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    out, err = run("merge", tmp_path / "recipe.yaml", tmp_path / "out")
    assert out.strip() == str(tmp_path / "out")
    assert err.splitlines()[0] == "mergekit runs this recipe (merge_method nearswap)"
    assert (tmp_path / "out/model.safetensors").exists() or list((tmp_path / "out").glob("model-*.safetensors"))


def test_check_says_what_would_be_read_and_written(recipe: Path) -> None:
    out, _ = run("check", recipe)
    assert "a valid merge recipe" in out
    facts = json.loads(run("check", recipe, "--json")[0])
    assert facts["kind"] == "merge"
    assert facts["bytes_read"] == 3 * facts["bytes_written"]


def test_inspect_shows_each_layer_and_draws_a_heat_map(triple: dict[str, Path], tmp_path: Path) -> None:
    words = ["inspect", triple["rlhf"], "--base", triple["base"], "--with", triple["sft"]]
    out, _ = run(*words, "--plot", tmp_path / "map.png")
    assert "model.layers.2" in out
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads(run(*words, "--json")[0])
    assert {r["name"] for r in rows} >= {"model.embed_tokens.weight"}
    assert all(0 <= r["sign_agreement"] <= 1 for r in rows)
    assert all(r["delta_norm"] > 0 for r in rows)


def test_methods_lists_the_table() -> None:
    assert {row["method"] for row in json.loads(run("methods", "--json")[0])} >= {"linear", "ties", "dare_ties", "della"}
    assert "2306.01708" in run("methods")[0]


def test_recipes_are_listed_shown_and_copied(tmp_path: Path) -> None:
    names = [line.split()[0] for line in run("recipes", "ls")[0].splitlines()]
    assert "merge/ties" in names
    shown = run("recipes", "show", "merge/ties")[0]
    assert shown.startswith("# mergetool merge")
    run("recipes", "copy", "merge/ties", tmp_path)
    assert (tmp_path / "ties.yaml").read_text() == shown
    assert CliRunner().invoke(app, ["recipes", "copy", "merge/ties", str(tmp_path)]).exit_code == 2
    run("recipes", "copy", "align/grpo-onties", tmp_path)
    assert (tmp_path / "brief.py").exists()  # the reward that the recipe names


def test_help_is_fast_because_heavy_imports_live_inside_commands() -> None:
    script = (
        "import sys, mergetool.cli.main\n"
        "heavy = {'torch', 'transformers', 'trl', 'numpy', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


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
