"""What is measured of a candidate is kept beside its line: scores row by row, answers, and how far its weights are."""

from __future__ import annotations

import json

import pytest

from mergetool.evaluate.interval import STATISTICS
from mergetool.study import run_study
from mergetool.study.analysis.row_scores import read
from tests.study import tiny

SKILLS = {
    "name": "skills",
    "metrics": ["nll", "exact_match"],
    "data": {"validation": "skills_validation.jsonl", "test": "skills_test.jsonl"},
}


@pytest.fixture(scope="module")
def out(folder, tmp_path_factory):
    study = tiny.study(folder, tax=SKILLS, candidates=[{"name": "linear", "merge": {"merge_method": "linear", "weight": 0.5}}])
    out = tmp_path_factory.mktemp("scored") / "out"
    return study, out, run_study(study, out)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_the_statistic_of_its_rows_and_holds_none_of_them(out) -> None:
    _, folder, _ = out
    rows = {one["name"]: read(one["rows"]) for one in lines(folder / "rows.jsonl")}
    for line in lines(folder / "results.jsonl"):
        assert not {"rows", "samples"} & line.keys()
        for split, scores in line["scores"].items():
            for name, score in scores.items():
                assert float(STATISTICS["ratio"](*rows[line["name"]][split][name].columns)) == pytest.approx(score["value"])


def test_distances_are_those_of_the_weights(out) -> None:
    _, folder, _ = out
    away = {one["name"]: one["distances"] for one in lines(folder / "results.jsonl")}
    assert away["sft"]["sft"] == 0.0
    assert away["linear w=0.5"]["sft"] == pytest.approx(away["rlhf"]["sft"] / 2, rel=1e-3)
    assert away["linear w=0.5"]["rlhf"] == pytest.approx(away["rlhf"]["sft"] / 2, rel=1e-3)


def test_answers_are_kept_with_their_scores(out) -> None:
    _, folder, _ = out
    samples = [one for one in lines(folder / "samples.jsonl") if one["name"] == "linear w=0.5"]
    assert [(one["split"], one["row"]) for one in samples] == [(s, at) for s in ("validation", "test") for at in range(12)]
    assert samples[0]["prompt"] == "say 0"
    assert set(samples[0]["scores"]) == {"exact_match"}


def test_a_second_run_reads_them_back_and_results_without_them_still_do(out) -> None:
    study, folder, first = out
    again = run_study(study, folder)
    assert again.ran == 0
    assert again.summary.differences == first.summary.differences != {"validation": {}, "test": {}}
    kept = (folder / "rows.jsonl").read_text()
    (folder / "rows.jsonl").unlink()
    old = run_study(study, folder)
    assert (old.ran, old.summary.choice.rule) == (0, "best")
    assert len(old.summary.without_rows) == len(old.rows)
    (folder / "rows.jsonl").write_text(kept)
