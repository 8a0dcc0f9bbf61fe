"""Two models and a task become a written merge, which is the one that the report says; a second call does nothing anew."""

from __future__ import annotations

import json

import pytest
import yaml
from safetensors.torch import load_file

from mergetool.errors import OutputError
from mergetool.merge import merge
from mergetool.study.compare import compare
from mergetool.study.pick import pick as module
from mergetool.study.pick.pick import pick
from tests.study import tiny


@pytest.fixture(scope="module")
def tasks(folder):
    tiny.write(folder / "all_skills.jsonl", tiny.SKILLS)
    tiny.write(folder / "all_pairs.jsonl", tiny.PAIRS)
    return [f"{folder / 'all_skills.jsonl'}:nll", str(folder / "all_pairs.jsonl")]


@pytest.fixture(scope="module")
def halved(folder, tasks, tmp_path_factory):
    """A machine on which a row takes long: halving has to choose."""
    out = tmp_path_factory.mktemp("pick") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_times", lambda inputs, measure: (0.1, 5.0))
        return pick([str(folder / "sft"), str(folder / "rlhf")], tasks, out)


def test_halving_leaves_a_few_and_the_rest_are_named(halved) -> None:
    assert halved.halving is not None
    assert len(halved.halving.kept) == 3
    assert {row["name"] for row in halved.result.rows} == {"sft", "rlhf", *halved.halving.kept}
    page = (halved.result.out / "report.html").read_text()
    for name, (rows, _) in halved.halving.dropped.items():
        assert f"{name} ({rows} rows)" in page


def test_what_is_written_is_the_choice_and_its_recipe_makes_the_same_bytes(halved, tmp_path) -> None:
    chosen = halved.result.summary.choice.group
    assert halved.model == halved.result.out / "model"
    assert chosen in (halved.result.out / "recipe.yaml").read_text().splitlines()[1]
    merge(halved.result.out / "recipe.yaml", tmp_path / "again")
    one, other = (load_file(place / "model.safetensors") for place in (halved.model, tmp_path / "again"))
    assert all((one[name] == other[name]).all() for name in one)


def test_the_study_beside_it_gives_the_same_choice(halved) -> None:
    study = halved.result.out / "study.yaml"
    again = compare(study, halved.result.out)
    assert again.ran == 0
    assert again.summary.choice == halved.result.summary.choice
    assert yaml.safe_load(study.read_text())["select"] == {"goal": "all"}


def test_validation_rows_alone_are_read_before_the_last_round(halved) -> None:
    lines = [json.loads(line) for line in (halved.result.out / "halving.jsonl").read_text().splitlines()]
    dropped = [one for one in lines if one["name"] in halved.halving.dropped]
    assert dropped
    assert all(set(one["scores"]) == {"all_skills.nll", "all_pairs.reward_margin"} for one in dropped)
    measured = {json.loads(line)["name"] for line in (halved.result.out / "results.jsonl").read_text().splitlines()}
    assert not measured & set(halved.halving.dropped), "what was dropped has never seen the test rows"


def test_a_second_call_measures_nothing_and_another_directory_is_left_alone(halved, folder, tasks, tmp_path) -> None:
    models = [str(folder / "sft"), str(folder / "rlhf")]
    again = pick(models, tasks, halved.result.out)
    assert again.result.ran == 0
    assert again.result.summary.choice == halved.result.summary.choice
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="not of an earlier pick"):
        pick(models, tasks, tmp_path)


def test_one_task_and_enough_time_measure_everything(folder, tasks, tmp_path) -> None:
    found = pick([str(folder / "sft"), str(folder / "rlhf")], tasks[:1], tmp_path / "out", budget=10_000.0)
    assert found.halving is None
    assert len(found.result.rows) == 2 + 5 + 3 + 2
    away = {group.name: group.scores["test"]["weights.distance"].mean for group in found.result.summary.groups}
    assert away["sft"] == 0
    assert away["linear w=0.1"] < away["linear w=0.9"] < away["rlhf"]
