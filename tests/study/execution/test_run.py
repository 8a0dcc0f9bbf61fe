"""A study does what is missing and no more; it measures what would be on disk; one failure stops nothing else."""

import json

import pytest

from mergetool.errors import OutputError
from mergetool.study import run_study, write_outputs
from tests.evaluate import tiny as models
from tests.study import tiny


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    study = tiny.study(folder)
    return study, run_study(study, tmp_path_factory.mktemp("study") / "out")


def value(row, name, split="test"):
    return row["scores"][split][name]["value"]


def by_name(result):
    return {row["name"]: row for row in result.rows}


def test_sft_has_no_reward_over_itself_and_every_candidate_is_measured_on_both_splits(done):
    rows = by_name(done[1])
    assert list(rows) == ["sft", "base", "rlhf", "linear w=0.25", "linear w=0.75", "ties p=0.3", "ties p=0.7"]
    assert value(rows["sft"], "pairs.preference_accuracy") == 0.5
    assert value(rows["sft"], "pairs.reward_margin") == 0.0
    for row in rows.values():
        assert value(row, "skills.nll", "validation") != value(row, "skills.nll", "test")
        assert set(row["scores"]["test"]["skills.nll"]["by"]) == {"odd", "even"}


def test_what_is_measured_is_what_the_merge_would_write(done, tmp_path):
    from mergetool.evaluate import evaluate
    from mergetool.evaluate.tasks import Task
    from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge

    row = by_name(done[1])["ties p=0.3"]
    merge_to_directory(plan_merge(MergeRecipe.model_validate(row["recipe"])), tmp_path / "merged")
    models.tokenizer().save_pretrained(tmp_path / "merged")
    written = evaluate(tmp_path / "merged", [Task("skills", ("nll",), tiny.SKILLS[12:])])
    assert written["skills.nll"]["value"] == value(row, "skills.nll")


def test_a_second_run_measures_nothing(done, monkeypatch):
    study, first = done
    monkeypatch.setattr("mergetool.study.execution.bench.Bench.score", lambda *_: pytest.fail("measured again"))
    again = run_study(study, first.out)
    assert again.ran == 0
    assert [row["scores"] for row in again.rows] == [row["scores"] for row in first.rows]


def test_a_line_cut_by_a_kill_costs_its_candidate_alone(done, tmp_path):
    study, first = done
    out = tmp_path / "out"
    out.mkdir()
    text = (first.out / "results.jsonl").read_text()
    (out / "results.jsonl").write_text(text[:-40])
    again = run_study(study, out)
    assert again.ran == 1
    assert len([json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()[-1:]]) == 1
    assert [row["scores"] for row in again.rows] == [row["scores"] for row in first.rows]


def test_a_new_candidate_costs_itself_alone_and_changed_rows_cost_everything(done, folder, tmp_path):
    _, first = done
    more = tiny.mapping()["candidates"] + [{"name": "slerp", "merge": {"merge_method": "slerp", "weight": 0.5}}]
    assert run_study(tiny.study(folder, candidates=more), first.out).ran == 1
    tax = {**tiny.mapping()["tax"], "limit": 5}
    assert run_study(tiny.study(folder, tax=tax), first.out).ran == 7


def test_a_candidate_that_fails_is_recorded_and_the_rest_go_on(folder, tmp_path):
    bad = folder / "bad"
    if not bad.exists():
        models.save(bad)
        weights = bad / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    study = tiny.study(folder, candidates=[{"name": "bad", "checkpoint": "bad"}, *tiny.mapping()["candidates"][:1]])
    result = run_study(study, tmp_path / "out")
    assert [name for name, _ in result.failures] == ["bad"]
    assert not result.bugs
    assert value(by_name(result)["linear w=0.75"], "skills.nll")
    assert "bad" not in [group.name for group in result.summary.groups]
    last = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert sum(bool(row["error"]) for row in last) == 1
    assert run_study(study, tmp_path / "out").ran == 1, "what failed is tried again"


def test_the_outputs_are_a_picture_and_one_self_contained_page(done):
    study, result = done
    _, picture, page = write_outputs(study, result)
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    assert "data:image/png;base64," in text
    assert "http" not in text.replace("http://www.w3.org", "")
    for row in result.rows:
        assert row["name"] in text
    assert "merge_method: ties" in text


def test_a_directory_of_something_else_is_left_alone(folder, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="not a study"):
        run_study(tiny.study(folder), tmp_path)


@pytest.mark.slow
def test_the_study_trains_its_own_rlhf_model_and_merges_each_seed_of_it(folder, tmp_path):
    study = tiny.study(
        folder,
        models={"base": "base", "sft": "sft", "rlhf": {"align": "adamw"}},
        align_defaults={
            "data": {"train": "pairs_validation.jsonl"},
            "training": {
                "learning_rate": 1e-3,
                "max_steps": 2,
                "per_device_train_batch_size": 4,
                "use_cpu": True,
                "max_length": 64,
            },
        },
        candidates=[
            {"name": "adamw", "align": {"method": "adamw", "seed": [0, 1]}},
            {"name": "ondare", "align": {"method": "ondare", "every": [1, "total"], "density": 0.5, "alpha": 0.1}},
            {"name": "dare", "merge": {"merge_method": "dare_linear", "weight": 0.5, "density": 0.5}},
        ],
    )
    result = run_study(study, tmp_path / "out")
    assert not result.failures
    groups = {group.name: group for group in result.summary.groups}
    assert len(groups["adamw"].members) == len(groups["dare w=0.5"].members) == 2
    assert groups["dare w=0.5"].scores["test"]["skills.nll"].sd > 0
    assert result.summary.rlhf == "adamw"
    assert (tmp_path / "out" / "candidates" / "ondare-Ktotal" / "config.json").exists()
    assert (tmp_path / "out" / "candidates" / "adamw-seed1.yaml").read_text().startswith("# mergetool align")
    assert run_study(study, tmp_path / "out").ran == 0


def test_what_was_measured_before_identity_was_content_is_not_measured_again(folder, tmp_path):
    from mergetool.study.execution.evaluator import Evaluator

    study = tiny.study(folder, candidates=[{"name": "linear", "merge": {"merge_method": "linear", "weight": 0.5}}])
    first = run_study(study, tmp_path / "out")
    evaluator = Evaluator(study, tmp_path / "out")
    path = tmp_path / "out" / "results.jsonl"
    before = {row["name"]: evaluator.legacy_key(one) for row, one in zip(first.rows, first.candidates, strict=True)}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert not {row["key"] for row in rows} & set(before.values())
    path.write_text("".join(json.dumps({**row, "key": before[row["name"]]}) + "\n" for row in rows))
    again = run_study(study, tmp_path / "out")
    assert (first.ran, again.ran) == (len(rows), 0)
    assert [row["scores"] for row in again.rows] == [row["scores"] for row in first.rows]
