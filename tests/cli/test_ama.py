"""mergetool ama: a recipe for each mean, what is there is not learned again, and mistakes are one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mergetool.cli.main import app
from tests.ama.small import make_pair, mapping


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pair(tmp_path_factory.mktemp("ama"))


def ama(folder: Path, out: Path, *options: str, **changes):
    whole = mapping(sft_model=str(folder / "sft"), rlhf_model=str(folder / "rlhf"), **changes)
    whole["data"] = {**whole["data"], "train": str(folder / "pairs.jsonl")}
    path = out.parent / "ama-recipe.yaml"
    path.write_text(yaml.safe_dump(whole))
    return CliRunner().invoke(app, ["ama", str(path), str(out), "--device", "cpu", *options])


def test_a_list_of_means_gives_a_recipe_for_each_and_a_second_run_learns_only_what_is_missing(pair, tmp_path) -> None:
    training = {"steps": 2, "batch_size": 4}
    first = ama(pair, tmp_path / "out.yaml", alpha=[0.2, 0.6], training=training)
    assert first.exit_code == 0, first.output
    paths = [tmp_path / f"out-alpha{alpha}.yaml" for alpha in (0.2, 0.6)]
    assert all(path.is_file() for path in paths)
    before = [path.stat().st_mtime_ns for path in paths]
    paths[1].unlink()
    found = json.loads(ama(pair, tmp_path / "out.yaml", "--json", alpha=[0.2, 0.6], training=training).stdout)
    assert [one["already_done"] for one in found] == [True, False]
    assert paths[0].stat().st_mtime_ns == before[0]
    changed = json.loads(ama(pair, tmp_path / "out.yaml", "--json", alpha=[0.2, 0.6], training={"steps": 3}).stdout)
    assert [one["already_done"] for one in changed] == [False, False]


@pytest.mark.parametrize(
    ("changes", "out", "line"),
    [
        ({"alpha": 1.5}, "out.yaml", "alpha"),
        ({"alpha": [0.2, 0.2]}, "out.yaml", "alpha names a value twice"),
        ({"blocks": 9}, "out.yaml", "9 parts of a model with 3 layers"),
        ({"blocs": 3}, "out.yaml", "did you mean 'blocks'"),
        ({"reward": "x.py:f"}, "out.yaml", "reward is given and data.best_of is not"),
        ({"data": {"train": "x", "best_of": 4}}, "out.yaml", "data.best_of is given and reward is not"),
        ({}, "out.txt", "a merge recipe is YAML"),
        ({}, "mine.yaml", "is there, and not made by"),
        ({"data": {"train": "x", "max_length": 2}}, "out.yaml", "raise data.max_length"),
        ({"data": {"train": "x", "best_of": 2}, "reward": "none.py:f"}, "out.yaml", "none.py: cannot be read"),
    ],
    ids=["share", "twice", "blocks", "misspelt", "reward", "best-of", "ending", "mine", "length", "reward-file"],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(pair, tmp_path, changes, out, line) -> None:
    (tmp_path / "mine.yaml").write_text("merge_method: linear\n")
    result = ama(pair, tmp_path / out, **changes)
    assert result.exit_code == 2, result.output
    told = [text for text in result.stderr.splitlines() if text.startswith("mergetool: ")]
    assert len(told) == 1
    assert line in told[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ama-recipe.yaml", "mine.yaml"]
