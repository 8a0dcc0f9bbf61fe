"""Bad input: one line that names the thing and the next step, exit code 2, nothing left behind, no traceback."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mergetool.cli.main import app
from tests.helpers import random_weights, write_checkpoint


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def run(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(w) for w in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def refused(place: Path, *words: object, left: set[str] = frozenset({"recipe.yaml"})) -> str:
    """Runs the command; asserts exit 2, one line on stderr, nothing on stdout, and nothing new in `place`."""
    code, out, err = run(*words)
    assert code == 2, (code, out, err)
    assert out == ""
    line = err.rstrip("\n")
    assert line.startswith("mergetool: ")
    assert "\n" not in line
    assert "Traceback" not in line
    assert ";" in line, "no next step"
    assert {p.name for p in place.iterdir()} <= left
    return line


def merge_recipe(triple: dict[str, Path], **fields: object) -> dict:
    models = [{"model": str(triple[m]), "parameters": {"weight": 0.5}} for m in ("sft", "rlhf")]
    return {
        "merge_method": "ties",
        "base_model": str(triple["base"]),
        "models": models,
        "parameters": {"density": 0.5},
        **fields,
    }


def save(place: Path, content: object) -> Path:
    path = place / "recipe.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def both(place: Path, content: object) -> str:
    """`check` and `merge` refuse a merge recipe in the same words."""
    recipe = save(place, content)
    line = refused(place, "check", recipe)
    assert refused(place, "merge", recipe, place / "out") == line
    return line


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"merge_metod": "ties"}, "merge_metod: unknown key; did you mean 'merge_method'"),
        ({"merge_method": "tie"}, "unknown merge_method 'tie'; did you mean 'ties'"),
        ({"parameters": {"densty": 0.5}}, "did you mean 'density'"),
        ({"parameters": {"density": 2}}, "density"),
        ({"dtype": "bf16"}, "did you mean 'bfloat16'"),
        ({"models": "sft"}, "models"),
        ({"models": []}, "models"),
        ({"base_model": "nowhere"}, "nowhere: no such model directory"),
    ],
)
def test_a_merge_recipe_with_a_mistake(triple: dict[str, Path], place: Path, change: dict, says: str) -> None:
    assert says in both(place, merge_recipe(triple, **change))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("[1, 2]", "list"),
        ("merge_method: [", "line"),
        ("merge_method: ties\nmerge_method: linear", "given twice"),
        ("colour: red", "neither merge_method"),
    ],
)
def test_a_file_that_is_no_recipe(place: Path, text: str, says: str) -> None:
    assert says in refused(place, "check", save(place, text))


def test_a_missing_recipe(place: Path) -> None:
    assert "no such file" in refused(place, "check", place / "nothing.yaml")
    assert "no such file" in refused(place, "merge", place / "nothing.yaml", place / "out")


def test_a_checkpoint_without_config(triple: dict[str, Path], place: Path, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "m", random_weights(0))
    (model / "config.json").unlink()
    line = both(place, merge_recipe({**triple, "sft": model}))
    assert f"{model}: has no config.json" in line


def test_two_checkpoints_of_different_width(triple: dict[str, Path], place: Path, tmp_path: Path) -> None:
    wide = write_checkpoint(tmp_path / "wide", random_weights(0, hidden_size=64), hidden_size=64)
    line = both(place, merge_recipe({**triple, "rlhf": wide}))
    assert "shape [64, 64]" in line
    assert str(wide) in line


def test_a_truncated_shard(triple: dict[str, Path], place: Path, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "m", random_weights(0), shards=2)
    shard = sorted(model.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    assert f"{shard}: is truncated" in both(place, merge_recipe({**triple, "sft": model}))


def test_an_output_that_is_not_ours(triple: dict[str, Path], place: Path) -> None:
    recipe = save(place, merge_recipe(triple))
    (place / "out").mkdir()
    (place / "out/thesis.txt").write_text("mine")
    assert "untouched" in refused(place, "merge", recipe, place / "out", left={"recipe.yaml", "out"})
    assert (place / "out/thesis.txt").read_text() == "mine"


def test_an_output_in_a_directory_one_cannot_write_to(triple: dict[str, Path], place: Path) -> None:
    recipe = save(place, merge_recipe(triple))
    assert "cannot be created" in refused(place, "merge", recipe, recipe / "below" / "out")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--engine", "fast"], "--engine fast"),
        (["--device", "tpu"], "--device tpu"),
        (["--shard-size", "many"], "--shard-size"),
        (["--sweep", "density"], "KEY=V1,V2"),
        (["--sweep", "models[7].weight=1"], "2 models"),
        (["--sweep", "densty=0.1,0.2"], "did you mean 'density'"),
    ],
)
def test_an_option_that_makes_no_sense(triple: dict[str, Path], place: Path, words: list[str], says: str) -> None:
    assert says in refused(place, "merge", save(place, merge_recipe(triple)), place / "out", *words)


def align_recipe(triple: dict[str, Path], data: Path, **fields: object) -> dict:
    return {
        "base_model": str(triple["base"]), "sft_model": str(triple["sft"]), "data": {"train": str(data)},
        "merging": {"method": "ondare", "density": 0.1, "alpha": 1e-6}, "training": {"max_steps": 1, "use_cpu": True}, **fields,
    }  # fmt: skip


def pairs(place: Path, rows: list[object]) -> Path:
    path = place.parent / "pairs.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


GOOD = {"prompt": "w1 w2", "chosen": " w3", "rejected": " w4"}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "empty"),
        ([GOOD, {"prompt": "w1", "rejected": "w2"}], "chosen"),
        ([GOOD, "text"], "row 2"),
    ],
    ids=["empty file", "row without chosen", "row that is no mapping"],
)
@pytest.mark.parametrize("command", ["check", "align"])
def test_a_preference_file_that_cannot_be_used(
    triple: dict[str, Path], place: Path, rows: list, says: str, command: str
) -> None:
    recipe = save(place, align_recipe(triple, pairs(place, rows)))
    words = ["check", recipe] if command == "check" else ["align", recipe, place / "out"]
    line = refused(place, *words)
    assert says in line
    assert "pairs.jsonl.gz" in line


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"merging": {"method": "ondares"}}, "did you mean 'ondare'"),
        ({"merging": {"method": "ondare", "densty": 0.1}}, "did you mean 'density'"),
        ({"training": {"learning_rat": 1}}, "did you mean 'learning_rate'"),
        ({"algorithm": "dop"}, "did you mean 'dpo'"),
        ({"sft_model": "nowhere"}, "no such model directory"),
    ],
)
def test_an_align_recipe_with_a_mistake(triple: dict[str, Path], place: Path, change: dict, says: str) -> None:
    recipe = save(place, align_recipe(triple, pairs(place, [GOOD]), **change))
    line = refused(place, "check", recipe)
    assert says in line
    assert refused(place, "align", recipe, place / "out") == line


def study_recipe(triple: dict[str, Path], place: Path, **fields: object) -> dict:
    other = place.parent / "other.jsonl"
    other.write_text(json.dumps({**GOOD, "prompt": "w9"}) + "\n")
    third, fourth = place.parent / "third.jsonl", place.parent / "fourth.jsonl"
    third.write_text(json.dumps({"prompt": "w1", "completion": " w2"}) + "\n")
    fourth.write_text(json.dumps({"prompt": "w5", "completion": " w6"}) + "\n")
    return {
        "models": {m: str(p) for m, p in triple.items()},
        "candidates": [{"name": "linear", "merge": {"merge_method": "linear", "weight": [0.3, 0.7]}}],
        "reward": {"metrics": ["preference_accuracy"], "data": {"validation": str(pairs(place, [GOOD])), "test": str(other)}},
        "tax": {"metrics": ["nll"], "data": {"validation": str(third), "test": str(fourth)}},
        **fields,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"candidats": []}, "did you mean 'candidates'"),
        ({"candidates": [{"name": "x", "merge": {"merge_method": "tie", "weight": 0.5}}]}, "did you mean 'ties'"),
        ({"candidates": [{"name": "x", "align": {"method": "ondair"}}]}, "ondair"),
        ({"tax": {"metrics": ["nil"], "data": {"validation": "a", "test": "b"}}}, "did you mean 'nll'"),
    ],
)
def test_a_study_recipe_with_a_mistake(triple: dict[str, Path], place: Path, change: dict, says: str) -> None:
    recipe = save(place, study_recipe(triple, place, **change))
    line = refused(place, "check", recipe)
    assert says in line
    assert refused(place, "compare", recipe, place / "out") == line


def test_a_study_of_models_of_different_width(triple: dict[str, Path], place: Path, tmp_path: Path) -> None:
    wide = write_checkpoint(tmp_path / "wide", random_weights(0, hidden_size=64), hidden_size=64)
    recipe = save(place, study_recipe({**triple, "rlhf": wide}, place))
    line = refused(place, "check", recipe)
    assert f"{wide}: tensor" in line
    assert "[64, 64]" in line


def test_a_row_in_both_splits_is_an_error(triple: dict[str, Path], place: Path) -> None:
    content = study_recipe(triple, place)
    content["tax"]["data"]["test"] = content["tax"]["data"]["validation"]
    assert "both" in refused(place, "check", save(place, content))
