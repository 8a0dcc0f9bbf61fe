"""Every kind of metric in one study: the reference is asked once, SFT is where it must be, and nothing is measured twice."""

import json

import pytest

from mergetool.errors import MergetoolError
from mergetool.study import run_study, write_outputs
from mergetool.study.recipe.check import check_study
from mergetool.study.recipe.columns import columns
from mergetool.study.recipe.splits import metrics_identity
from tests.evaluate import endpoint, public
from tests.evaluate import tiny as models
from tests.study import tiny

KEY_ENV = "JUDGE_KEY_OF_THE_TEST"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tiny.triple(tmp_path_factory.mktemp("triple"))
    models.reward_model(place / "rm")
    public.tasks(place / "benchmarks")
    for split, some in (("validation", range(6)), ("test", range(6, 12))):
        tiny.write(
            place / f"asked_{split}.jsonl", [{"prompt": f"say {at}", "category": ["even", "odd"][at % 2]} for at in some]
        )
    return place


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv(KEY_ENV, endpoint.KEY)


def data(kind):
    return {"validation": f"{kind}_validation.jsonl", "test": f"{kind}_test.jsonl"}


def entries(url="http://127.0.0.1:1/v1", **judge):
    asked = {"base_url": url, "model": "judge", "key_env": KEY_ENV, "retries": 0, **judge}
    return {
        "reward": [
            {"name": "asked", "metrics": ["win_rate", "reward_model"], "data": data("asked"), "max_new_tokens": 5,
             "judge": asked, "reward_model": "rm"},
            {"name": "pairs", "metrics": ["reward_margin", "length_controlled_margin"], "data": data("pairs")},
        ],
        "tax": [
            {"name": "public", "tasks": ["pooled", "say_em"], "include": "benchmarks"},
            {"name": "skills", "metrics": ["exact_match", "code_switching", "kl_to_sft", "nll"], "data": data("skills")},
        ],
        "candidates": [{"name": "linear", "merge": {"merge_method": "linear", "weight": [0.25, 0.75]}}],
    }  # fmt: skip


def longer_wins(_, first, second):
    return "[[A]]" if len(first) > len(second) else "[[B]]" if len(second) > len(first) else "[[C]]"


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_ENV, endpoint.KEY)
        with endpoint.judge(longer_wins) as seen:
            study = tiny.study(folder, **entries(seen.url))
            result = run_study(study, tmp_path_factory.mktemp("study") / "out")
    return study, result, seen


def scores(result, name, split="test"):
    return next(row for row in result.rows if row["name"] == name)["scores"][split]


def test_sft_is_where_each_metric_puts_it_and_the_others_are_elsewhere(done):
    _, result, _ = done
    assert not result.failures
    for split in ("validation", "test"):
        sft, rlhf = scores(result, "sft", split), scores(result, "rlhf", split)
        assert sft["asked.win_rate"]["value"] == 0.5
        assert sft["skills.kl_to_sft"]["value"] == 0.0 < rlhf["skills.kl_to_sft"]["value"]
        assert sft["pairs.length_controlled_margin"]["value"] == 0.0 != rlhf["pairs.length_controlled_margin"]["value"]
        assert sft["asked.reward_model"]["value"] != rlhf["asked.reward_model"]["value"]
        assert rlhf["asked.win_rate"]["without_verdict"] == 0


def test_every_column_has_its_unit_and_its_direction_and_a_score_in_every_line(done):
    study, result, _ = done
    named = {column.name: column for column in columns(study)}
    assert list(named) == [
        "asked.win_rate", "asked.reward_model", "pairs.reward_margin", "pairs.length_controlled_margin",
        "public.average", "public.pooled", "public.say_em",
        "skills.exact_match", "skills.code_switching", "skills.kl_to_sft", "skills.nll",
    ]  # fmt: skip
    assert all(column.metric.unit for column in named.values())
    assert not named["skills.kl_to_sft"].metric.higher_is_better
    for row in result.rows:
        assert set(row["scores"]["test"]) == set(named)
    assert result.summary.tax.name == "public.average"


def test_categories_are_kept_for_rows_and_for_groups(done):
    found = scores(done[1], "rlhf")
    assert set(found["asked.win_rate"]["by"]) == {"even", "odd"}
    assert set(found["public.pooled"]["by"]) == {"quiz_a", "quiz_b"}
    assert set(found["skills.kl_to_sft"]["by"]) == {"even", "odd"}
    by = found["skills.nll"]["by"]
    assert min(by.values()) <= found["skills.nll"]["value"] <= max(by.values())


def test_nothing_is_paid_or_measured_twice(done, folder):
    study, result, seen = done
    paid = len(seen.bodies)
    verdicts = (result.out / "verdicts.jsonl").read_text().splitlines()
    assert len(verdicts) == paid > 0
    assert run_study(study, result.out).ran == 0, "the judge is not running any more"
    # the lines are gone, the verdicts are not: a study that is measured again asks a judge that is not there nothing
    (result.out / "results.jsonl").write_text("")
    again = run_study(study, result.out)
    assert again.ran == len(result.rows)
    assert not again.failures
    assert [row["scores"] for row in again.rows] == [row["scores"] for row in result.rows]
    assert len(seen.bodies) == paid
    for file in result.out.rglob("*"):
        assert not file.is_file() or endpoint.KEY.encode() not in file.read_bytes(), f"{file} holds the key"


def test_the_picture_and_the_page_name_every_column(done):
    study, result, _ = done
    _, picture, page = write_outputs(study, result)
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    for column in columns(study):
        assert column.metric.unit in text


def test_a_judge_that_is_not_there_is_said_before_anything_is_trained(folder, tmp_path):
    study = tiny.study(folder, **entries())
    with pytest.raises(MergetoolError, match=r"127\.0\.0\.1:1/v1 cannot be reached"):
        run_study(study, tmp_path / "out")


def test_what_decides_a_score_is_in_its_identity_and_what_does_not_is_not(folder):
    def identity(*changes):
        mapping = entries()
        for side, at, key, value in changes:
            mapping[side][at] = {**mapping[side][at], key: value}
        return metrics_identity(tiny.study(folder, **mapping))

    before = identity()
    judge = entries()["reward"][0]["judge"]
    assert identity(("reward", 0, "judge", {**judge, "concurrency": 2, "timeout": 5, "key_env": None})) == before
    assert identity(("tax", 0, "batch_size", 2)) == before
    others = [
        identity(("reward", 0, "judge", {**judge, "model": "other"})),
        identity(("tax", 0, "num_fewshot", 1)),
        identity(("tax", 0, "limit", 3)),
        identity(("tax", 0, "tasks", ["pooled"])),
        identity(("tax", 0, "chat", True)),
    ]
    models.reward_model(folder / "other", seed=1)
    others.append(identity(("reward", 0, "reward_model", "other")))
    assert len({before, *others}) == 7


def test_a_sound_study_is_checked_without_weights(folder):
    found = check_study(tiny.study(folder, **entries()))
    assert found["rows"]["asked"] == {"validation": 6, "test": 6}
    assert "public" not in found["rows"]
    assert found["benchmarks"] == ["pooled", "say_em"]
    assert "not_run" not in found
    assert "public.average" in found["metrics"]


ASKED = {"name": "a", "data": data("asked")}
JUDGE = {"base_url": "http://h/v1", "model": "m"}
TWICE = {"validation": "asked_test.jsonl", "test": "asked_test.jsonl"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"reward": {**ASKED, "metrics": ["win_rate"]}}, "win_rate needs judge:"),
        ({"reward": {**ASKED, "metrics": ["reward_model"]}}, "reward_model needs reward_model:"),
        ({"reward": {**ASKED, "metrics": ["reward_model"], "reward_model": "sft"}}, "is LlamaForCausalLM, not a reward model"),
        ({"reward": {**ASKED, "metrics": ["reward_model"], "reward_model": "nowhere"}}, "nowhere"),
        ({"reward": {**ASKED, "metrics": ["reward_model"], "reward_model": "rm", "judge": JUDGE}},
         "add win_rate to metrics"),
        ({"reward": {**ASKED, "metrics": ["win_rate"], "judge": {"base_url": "host/v1", "model": "m"}}}, "is no address"),
        ({"reward": {**ASKED, "metrics": ["win_rate"], "judge": {"base_url": "http://h/v1", "model": "m", "key": "sk"}}},
         "did you mean 'key_env'"),
        ({"tax": {"name": "t", "tasks": ["quiz_a"], "metrics": ["nll"], "include": "benchmarks"}}, "give one of the two"),
        ({"tax": {"name": "t"}}, "give one of the two"),
        ({"tax": {"name": "t", "metrics": ["nll"]}}, "no data:"),
        ({"tax": {"name": "t", "tasks": ["quiz_a"], "data": data("skills")}}, "'data' has no meaning beside tasks:"),
        ({"tax": {"name": "t", "metrics": ["nll"], "data": data("skills"), "num_fewshot": 2}}, "'num_fewshot' has no meaning"),
        ({"tax": {"name": "t", "tasks": ["quizzes"], "include": "benchmarks"}}, "is a tag of 2 tasks"),
        ({"tax": {"name": "t", "tasks": ["quiz_a:f1"], "include": "benchmarks"}}, "has no metric 'f1'"),
        ({"tax": {"name": "t", "tasks": ["quiz_a"], "include": "nowhere"}}, "no such directory"),
        ({"tax": {**ASKED, "metrics": ["win_rate"], "judge": JUDGE}}, "measures reward; move"),
        ({"tax": {"name": "t", "metrics": ["code_switching"], "data": TWICE}},
         "in the validation split too"),
        ({"tax": {"name": "t", "metrics": ["kl_to_sft", "reward_margin"], "data": data("skills")}}, "mixes"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_said_in_one_line(folder, change, says):
    with pytest.raises(MergetoolError) as caught:
        check_study(tiny.study(folder, **change))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_rows_of_one_prompt_are_one_row_where_the_model_writes_the_answer(folder):
    rows = [{"prompt": "same", "chosen": "a", "rejected": "b"}, {"prompt": "same", "chosen": "a", "rejected": "c"}]
    for name, row in zip(("twin_validation", "twin_test"), rows, strict=True):
        tiny.write(folder / f"{name}.jsonl", [row])
    reward = {"name": "a", "metrics": ["reward_margin"], "data": data("twin")}
    check_study(tiny.study(folder, reward=reward))
    with pytest.raises(MergetoolError, match="in the validation split too"):
        check_study(tiny.study(folder, reward={**reward, "metrics": ["reward_margin", "reward_model"], "reward_model": "rm"}))


def test_the_reference_keeps_what_each_entry_compares_with_and_no_more(done):
    _, result, _ = done
    kept = json.loads((result.out / "reference.json").read_text())
    assert kept["references"]["test"]["asked"]["answers"]
    assert kept["references"]["test"]["pairs"]["log_probs"]
    assert kept["references"]["test"]["skills"] == {"log_probs": None, "answers": None}
