"""What --save writes is what was measured, complete, once."""

import json
import shutil

import pytest

from mergetool.errors import OutputError
from mergetool.study import run_study
from mergetool.study.execution import save as saving
from mergetool.study.execution.save import save
from tests.study import tiny


@pytest.fixture(scope="module")
def study(folder):
    slerp = {"name": "slerp", "merge": {"merge_method": "slerp", "weight": 0.5}}
    ready = {"name": "ready", "checkpoint": "rlhf"}
    return tiny.study(folder, candidates=[*tiny.mapping()["candidates"], slerp, ready])


@pytest.fixture
def result(study, tmp_path_factory):
    return run_study(study, tmp_path_factory.mktemp("study") / "out")


def test_all_of_them_are_whole_checkpoints_and_score_what_was_measured(study, result, folder):
    from mergetool.evaluate import evaluate
    from mergetool.evaluate.tasks import Task

    saved = {one.name: one for one in save(study, result, "all")}
    assert list(saved) == [row["name"] for row in result.rows]
    assert saved["ready"].path == folder / "rlhf"
    assert not saved["sft"].written
    for row in result.rows:
        if row["kind"] == "merge":
            place = saved[row["name"]].path
            assert saved[row["name"]].written
            assert place.parent == result.out / "candidates"
            assert json.loads((place / "mergetool.json").read_text())["recipe"]["merge_method"] == row["recipe"]["merge_method"]
            assert (place / "README.md").exists()
            assert place.with_name(place.name + ".yaml").read_text().startswith(f"# mergetool merge {place.name}.yaml")
            skills = evaluate(place, [Task("skills", ("nll",), tiny.SKILLS[12:])])
            assert skills["skills.nll"]["value"] == row["scores"]["test"]["skills.nll"]["value"]


def test_a_second_time_nothing_is_written_and_a_changed_recipe_replaces_its_own(study, result, folder):
    save(study, result, "all")
    before = {path: path.stat().st_mtime_ns for path in result.out.rglob("model.safetensors")}
    assert len(before) == 5
    assert not any(one.written for one in save(study, result, "all"))
    changed = tiny.mapping()["candidates"]
    changed[1]["merge"]["weight"] = 0.6  # the name, `ties p=0.3`, stays
    other = tiny.study(folder, candidates=changed)
    written = [one.name for one in save(other, run_study(other, result.out), "all") if one.written]
    assert written == ["ties p=0.3", "ties p=0.7"]


def test_best_is_the_choice_and_front_the_front(study, result):
    chosen = result.summary.choice.group
    assert [one.name for one in save(study, result, "best")] == [chosen]
    assert [one.name for one in save(study, result, "front")] == [
        row["name"] for row in result.rows if row["group"] in result.summary.front
    ]


def test_merges_of_the_same_inputs_share_a_reading(study, result, monkeypatch):
    from mergetool import merge

    readings = []
    real = merge.merge_to_directories
    monkeypatch.setattr(merge, "merge_to_directories", lambda plans, outs: readings.append(len(outs)) or real(plans, outs))
    save(study, result, "all")
    assert sorted(readings) == [2, 3]


def test_too_little_room_is_said_before_anything_is_written(study, result, monkeypatch):
    full = shutil.disk_usage(result.out)._replace(free=1000)
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda path: full)
    with pytest.raises(OutputError, match=r"--save all: 5 merges need .* take --save front"):
        save(study, result, "all")
    assert not (result.out / "candidates").exists()


def test_where_nothing_was_chosen_the_error_says_why(folder, tmp_path):
    models = {"base": "base", "sft": "sft"}
    study = tiny.study(folder, models=models, candidates=[{"name": "x", "checkpoint": "rlhf"}])
    result = run_study(study, tmp_path / "out")
    with pytest.raises(OutputError, match="no RLHF model"):
        save(study, result, "best")


def test_the_command_prints_one_path_a_line_and_a_wrong_word_is_one_line(folder, tmp_path):
    import yaml
    from typer.testing import CliRunner

    from mergetool.cli.main import app

    recipe = folder / "study.yaml"
    recipe.write_text(yaml.safe_dump(tiny.mapping()))
    words = ["compare", str(recipe), str(tmp_path / "out"), "--save"]
    wrong = CliRunner().invoke(app, [*words, "bset"])
    assert wrong.exit_code == 2
    assert wrong.stderr == "mergetool: --save bset is not known; did you mean 'best'?\n"
    assert not (tmp_path / "out").exists()
    found = CliRunner().invoke(app, [*words, "all"])
    assert found.exit_code == 0
    assert found.stdout.splitlines()[-4:] == [
        str(tmp_path / "out/candidates" / name) for name in ("linear-w0.25", "linear-w0.75", "ties-p0.3", "ties-p0.7")
    ]
    assert "ties p=0.3: written" in found.stderr
    again = json.loads(CliRunner().invoke(app, [*words, "best", "--json"]).stdout)
    assert [one["name"] for one in again["saved"]] == [again["chosen"]["group"]]
    assert {one["family"] for one in again["hypervolume"]["families"]} == {"linear", "ties", ""}
