"""A search tries what its seed and the validation scores say; killed and run again it tries the same."""

import json

import pytest

from mergetool.errors import MergetoolError
from mergetool.study import check_study, run_study
from mergetool.study.execution import search as searching
from tests.study import tiny

SEARCH = {
    "name": "found",
    "search": {"trials": 11, "seed": 3, "batch": 2},
    "merge": {"merge_method": "ties", "weight": {"low": 0, "high": 1}, "density": {"low": 0.05, "high": 1, "log": True}},
}


@pytest.fixture(scope="module")
def study(folder):
    return tiny.study(folder, candidates=[SEARCH])


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory):
    return run_study(study, tmp_path_factory.mktemp("search") / "out")


def trials(result):
    return [row["recipe"] for row in result.rows if row["family"] == "found"]


def test_every_trial_is_a_candidate_with_an_exact_recipe(whole):
    found = trials(whole)
    assert len(found) == 11
    assert len({json.dumps(one, sort_keys=True) for one in found}) == 11
    for row in whole.rows[3:]:
        weight, density = row["settings"]["weight"], row["settings"]["density"]
        assert 0 <= weight <= 1
        assert 0.05 <= density <= 1
        assert row["recipe"]["models"][1]["parameters"] == {"weight": weight, "density": density}
    assert whole.rows[3]["name"].startswith("found 1 w=")
    assert whole.summary.choice.by_family.keys() == {"rlhf", "found"}


def test_a_run_that_was_killed_tries_the_same_as_one_that_was_not(study, whole, tmp_path):
    lines = (whole.out / "results.jsonl").read_text().splitlines(keepends=True)
    for kept in (3, 6, 12):  # before the first trial, in the middle of a batch, and with half a line
        out = tmp_path / str(kept)
        out.mkdir()
        (out / "results.jsonl").write_text("".join(lines[:kept]) + lines[kept][:30])
        again = run_study(study, out)
        assert again.ran == len(lines) - kept
        assert trials(again) == trials(whole)
        assert [row["scores"] for row in again.rows] == [row["scores"] for row in whole.rows]
    assert run_study(study, whole.out).ran == 0


def test_the_test_rows_are_not_asked(study, whole, tmp_path, monkeypatch):
    """Spoilt test scores change nothing of what is tried; spoilt validation scores do."""
    real = searching.Search.told

    def spoilt(split):
        def told(self, candidate, row):
            for score in row["scores"][split].values():
                score["value"] = -score["value"] + len(candidate.name)
            return real(self, candidate, row)

        monkeypatch.setattr(searching.Search, "told", told)
        return trials(run_study(study, tmp_path / split))

    assert spoilt("test") == trials(whole)
    assert spoilt("validation") != trials(whole)


def test_another_seed_tries_something_else_and_a_longer_search_begins_the_same(folder, whole, tmp_path):
    def of(**plan):
        entry = {**SEARCH, "search": {**SEARCH["search"], **plan}}
        return trials(run_study(tiny.study(folder, candidates=[entry]), tmp_path / json.dumps(plan)))

    assert of(seed=4) != trials(whole)
    assert of(trials=13)[:10] == trials(whole)[:10]


def test_a_trial_that_fails_is_left_out_and_the_search_goes_on(folder, tmp_path, monkeypatch):
    study = tiny.study(folder, candidates=[SEARCH])
    from mergetool.study.execution.live_model import LiveModel

    put = LiveModel.put_merge

    def broken(self, recipe, where):
        if where.startswith("found 3 "):
            raise MergetoolError("no")
        put(self, recipe, where)

    monkeypatch.setattr(LiveModel, "put_merge", broken)
    result = run_study(study, tmp_path / "out")
    assert [name[:8] for name, _ in result.failures] == ["found 3 "]
    assert len(trials(result)) == 11


def test_whole_numbers_and_choices_are_searched_too(folder):
    entry = {
        "name": "o",
        "search": {"trials": 30},
        "align": {
            "method": "ondare",
            "every": {"low": 1, "high": 64, "step": 1, "log": True},
            "density": 0.5,
            "alpha": {"low": 1e-7, "high": 1e-3, "log": True},
            "rescale": ["l1", "none"],
            "seed": [0, 1],
        },
    }
    study = tiny.study(folder, candidates=[entry], align_defaults={"data": {"train": "pairs_validation.jsonl"}})
    assert check_study(study)["searches"] == {"o": "30 trials"}
    first = searching.Search(study, study.candidates[0], lambda candidate: None).next()
    assert [one.seed for one in first] == [0, 1] * 4
    assert len({one.group for one in first}) == 4
    for one in first:
        merging = one.recipe["merging"]
        assert isinstance(merging["every"], int)
        assert merging["rescale"] in ("l1", "none")
        assert merging["density"] == 0.5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"search": None}, "add search"),
        ({"search": {"trials": 0}}, "trials"),
        ({"search": {"trial": 4}}, "did you mean 'trials'"),
        ({"merge": {"merge_method": "ties", "weight": 0.5}}, "nothing to search"),
        ({"merge": {"merge_method": "ties", "weight": {"low": 0.5, "high": 0.1}}}, "must be below"),
        ({"merge": {"merge_method": "ties", "weight": {"low": 0.5, "high": 1.5}}}, "from 0 to 1"),
        ({"merge": {"merge_method": "ties", "weight": {"low": "a", "high": 1}}}, "low of the range cannot be 'a'"),
        ({"merge": {"merge_method": "ties", "weight": {"high": 1}}}, "the range has no low"),
        ({"merge": {"merge_method": "ties", "weight": 0.5, "density": {"low": 0, "high": 1, "log": True}}}, "no logarithm"),
        ({"merge": {"merge_method": "ties", "weight": 0.5, "density": {"low": 0, "hihg": 1}}}, "'hihg'"),
        ({"merge": {"merge_method": "ties", "weight": 0.5, "densty": {"low": 0.1, "high": 1}}}, "did you mean 'density'"),
        ({"merge": {"merge_method": "ties", "weight": 0.5, "density": {"low": 0.1, "high": 3}}}, "density"),
        ({"merge": None, "checkpoint": "sft"}, "neither merge nor align"),
    ],
)
def test_a_search_that_cannot_be_made_is_said_in_one_line(folder, change, says):
    entry = {key: value for key, value in {**SEARCH, **change}.items() if value is not None}
    with pytest.raises(MergetoolError) as caught:
        check_study(tiny.study(folder, candidates=[entry]))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_optuna_the_extra_is_named(study, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MergetoolError, match=r"Optuna is not installed; pip install \"mergetool\[search\]\""):
        check_study(study)
