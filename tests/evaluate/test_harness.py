"""The harness gives its own numbers on the live model; halves share no document; names are known without data."""

import json

import numpy as np
import pytest

from mergetool.errors import DataError, RecipeError
from mergetool.evaluate import SUITES, Harness, HarnessTask, evaluate
from mergetool.evaluate.harness.halves import halves
from mergetool.evaluate.harness.names import expand, identity, not_run
from tests.evaluate import public, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return public.tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def model():
    return tiny.llama(1)


def task(folder, *names, **changes):
    return HarnessTask("public", names, include=(folder,), **changes)


def test_the_value_is_the_harnesss_own_and_the_interval_comes_from_its_rows(folder, model, monkeypatch):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    ours = Harness(task(folder, "quiz_a", "quiz_b:acc_norm")).measure(model, tiny.tokenizer())
    monkeypatch.chdir(folder)  # the harness looks for data files where it runs
    theirs = simple_evaluate(
        HFLM(pretrained=model, tokenizer=tiny.tokenizer(), batch_size=4),
        tasks=["quiz_a", "quiz_b"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
    )
    assert ours["quiz_a"]["value"] == theirs["results"]["quiz_a"]["acc,none"]
    assert ours["quiz_b:acc_norm"]["value"] == theirs["results"]["quiz_b"]["acc_norm,none"]
    assert ours["quiz_a"]["n"] == 20
    assert ours["quiz_a"]["low"] <= ours["quiz_a"]["value"] <= ours["quiz_a"]["high"]
    assert ours["quiz_a"]["low"] < ours["quiz_a"]["high"]


def test_a_group_is_averaged_as_it_says(folder, model):
    found = Harness(task(folder, "pooled")).measure(model, tiny.tokenizer())["pooled"]
    parts = found["by"]
    assert found["value"] == pytest.approx((20 * parts["quiz_a"] + 10 * parts["quiz_b"]) / 30)
    plain = Harness(task(folder, "plain")).measure(model, tiny.tokenizer())["plain"]
    assert plain["value"] == pytest.approx((parts["quiz_a"] + parts["quiz_b"]) / 2)
    assert plain["low"] < plain["value"] < plain["high"]


def test_answers_that_are_written_are_scored_and_bleu_has_an_interval(folder):
    import torch

    model, tokenizer = tiny.llama(1), tiny.tokenizer()
    letter = tokenizer("1")["input_ids"][0]
    model.lm_head.register_forward_hook(lambda _, __, out: out.index_fill(-1, torch.tensor([letter]), 1e4))  # writes 1111
    found = Harness(task(folder, "say_em", "say_bleu:bleu")).measure(model, tokenizer)
    assert found["say_em"]["value"] == 0.0
    assert found["say_bleu:bleu"]["unit"] == "BLEU, 0 to 100"
    assert found["say_bleu:bleu"]["n"] == 18
    assert found["average"]["value"] == pytest.approx((0.0 + found["say_bleu:bleu"]["value"] / 100) / 2)
    assert found["average"]["unit"] == "mean share"


def test_an_average_tells_its_categories():
    from mergetool.evaluate.harness.names import Asked
    from mergetool.evaluate.harness.scores import average
    from mergetool.evaluate.metrics import Metric

    metrics = [
        Metric(name, "tax", "x", True, "harness", name, "", perfect=top) for name, top in (("a", 1.0), ("b", 1.0), ("c", 100.0))
    ]
    asked = [Asked("a", "a", category="one"), Asked("b", "b", category="one"), Asked("c", "c", category="two")]
    found = {name: {"value": value, "n": 2} for name, value in (("a", 0.2), ("b", 0.4), ("c", 90.0))}
    drawn = [np.array([0.1, 0.3]), np.array([0.4, 0.4]), np.array([80.0, 100.0])]
    score = average(asked, metrics, found, drawn)
    assert score["value"] == pytest.approx((0.2 + 0.4 + 0.9) / 3)
    assert score["by"] == pytest.approx({"one": 0.3, "two": 0.9})
    assert score["low"] < score["value"] < score["high"]
    plain = [Asked("a", "a"), Asked("b", "b"), Asked("c", "c")]
    assert average(plain, metrics, found, drawn)["by"] == pytest.approx({"a": 0.2, "b": 0.4, "c": 0.9})


@pytest.mark.parametrize("limit", [None, 4])
def test_the_halves_share_no_document_and_make_up_the_whole(folder, limit):
    harness = Harness(task(folder, "quiz_a", "quiz_b", limit=limit))
    samples = {half: harness._samples(half) for half in ("validation", "test")}
    for name, size in (("quiz_a", 20), ("quiz_b", 10)):
        first, second = samples["validation"][name], samples["test"][name]
        assert not set(first) & set(second)
        assert len(first) + len(second) == size if limit is None else len(first) == len(second) == 4 or size == 10
    docs = [json.dumps(row, sort_keys=True) for row in public.QUIZ]  # quiz_b holds the first ten of quiz_a
    assert not {docs[at] for at in samples["validation"]["quiz_a"]} & {docs[at] for at in samples["test"]["quiz_b"]}


def test_equal_documents_share_a_half_and_the_halves_are_about_equal():
    rows = [{"q": at // 2, "a": "x"} for at in range(2000)]
    found = halves(rows)
    assert {at // 2 for at in found["validation"]}.isdisjoint({at // 2 for at in found["test"]})
    assert len(found["validation"]) == pytest.approx(1000, abs=4 * np.sqrt(2000))
    assert halves(rows) == found
    assert found["validation"] != sorted(found["validation"]), "a limit takes documents at random"


def test_each_half_is_what_its_documents_score(folder, model):
    harness = Harness(task(folder, "quiz_a"))
    scores = {half: harness.measure(model, tiny.tokenizer(), half)["quiz_a"] for half in ("validation", "test", None)}
    assert scores["validation"]["n"] + scores["test"]["n"] == scores[None]["n"] == 20
    hits = sum(scores[half]["value"] * scores[half]["n"] for half in ("validation", "test"))
    assert hits == pytest.approx(scores[None]["value"] * 20)


def test_a_task_too_small_for_two_halves_says_so(tmp_path, model):
    folder = public.tasks(tmp_path)
    (folder / "a.jsonl").write_text(json.dumps(public.QUIZ[0]) + "\n")
    harness = Harness(task(folder, "quiz_a"))

    def both() -> None:
        for half in ("validation", "test"):
            harness.measure(model, tiny.tokenizer(), half)

    with pytest.raises(DataError, match="'quiz_a' has too few documents"):
        both()


def test_measuring_leaves_seeds_tokenizer_and_streams_as_they_were(folder, model, capfd):
    import random

    import torch

    tokenizer = tiny.tokenizer()
    tokenizer.pad_token = None
    random.seed(5)
    torch.manual_seed(5)
    Harness(task(folder, "quiz_a", "say_em")).measure(model, tokenizer)
    drawn = random.random(), torch.rand(1).item()
    random.seed(5)
    torch.manual_seed(5)
    assert drawn == (random.random(), torch.rand(1).item())
    assert tokenizer.pad_token is None
    assert capfd.readouterr() == ("", "")


def test_columns_are_known_without_data(tmp_path):
    folder = public.tasks(tmp_path)
    for file in folder.glob("*.jsonl"):
        file.unlink()
    found = {one.name: one for one in task(folder, "pooled", "say_em", "say_bleu:bleu").metrics("reward")}
    assert list(found) == ["average", "pooled", "say_em", "say_bleu:bleu"]
    assert {one.side for one in found.values()} == {"reward"}
    assert all(one.higher_is_better and one.unit for one in found.values())
    assert found["pooled"].unit == "share of rows"


def test_metrics_of_different_scales_have_no_average(folder):
    (folder / "odd.yaml").write_text(
        (folder / "say_em.yaml").read_text().replace("say_em", "odd").replace("exact_match", "ter")
    )
    found = task(folder, "quiz_a", "odd").metrics()
    assert [one.name for one in found] == ["quiz_a", "odd"]
    assert not found[1].higher_is_better


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["quiz_a:acc_nrm"], "has no metric 'acc_nrm'; did you mean 'acc_norm'"),
        (["quiz_a:"], "is no task"),
        (["quiz_a", "quiz_a"], "appears twice"),
        (["pooled", "quiz_a"], "is measured twice"),
        (["quizzes"], "is a tag of 2 tasks and has no score; name them: quiz_a, quiz_b"),
        (["say_em:exact_match:strict"], "gives no 'exact_match:strict'; known: exact_match:none"),
    ],
)
def test_names_that_cannot_be_measured_say_why(folder, model, names, says):
    with pytest.raises(RecipeError) as caught:
        Harness(task(folder, *names)).measure(model, tiny.tokenizer())
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("task: broken\n  dataset_path: [", "broken.yaml"),
        ("task: broken\ndataset_path: json\noutput_type: multiple_choice\n", "'broken' cannot be loaded"),
        (
            "task: broken\ndataset_path: json\ndataset_kwargs: {data_files: nowhere.jsonl}\ntest_split: train\n"
            "output_type: generate_until\ndoc_to_text: q\ndoc_to_target: a\n",
            "nowhere.jsonl",
        ),
        (
            "task: broken\ndataset_path: json\ndataset_kwargs: {data_files: {test: say.jsonl}}\ntest_split: test\n"
            "unsafe_code: true\noutput_type: generate_until\ndoc_to_text: q\ndoc_to_target: a\n",
            "would execute code that the model wrote",
        ),
    ],
    ids=["no YAML", "no data", "missing file", "runs code"],
)  # fmt: skip
def test_a_local_task_that_cannot_be_loaded_is_one_line(tmp_path, text, says):
    folder = public.tasks(tmp_path)
    (folder / "broken.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        Harness(task(folder, "broken")).load()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["own", "own:agree@1"])
def test_a_function_of_the_tasks_own_names_its_scores(tmp_path, model, name):
    folder = public.tasks(tmp_path)
    (folder / "own.py").write_text("def agree(references, predictions):\n    return {'agree@1': len(references) / 2}\n")
    text = (folder / "say_em.yaml").read_text().replace("say_em", "own")
    own = "{metric: !function own.agree, aggregation: mean, higher_is_better: true}"
    (folder / "own.yaml").write_text(text.replace("{metric: exact_match}", own))
    score = Harness(task(folder, name)).measure(model, tiny.tokenizer())[name]
    assert (score["value"], score["n"]) == (0.5, 18)


def test_a_group_inside_a_group_hides_no_code(tmp_path):
    folder = public.tasks(tmp_path)
    inner = "  - group: inner\n    task:\n      - {task: quiz_a, unsafe_code: true}\n"
    (folder / "outer.yaml").write_text(f"group: outer\ntask:\n{inner}aggregate_metric_list: [{{metric: acc}}]\n")
    with pytest.raises(RecipeError, match="quiz_a would execute code"):
        Harness(task(folder, "outer")).load()


def test_a_directory_without_tasks_says_so(tmp_path):
    for place, says in ((tmp_path, "no .yaml file"), (tmp_path / "none", "no such directory")):
        with pytest.raises(RecipeError, match=says):
            task(place, "quiz_a").metrics()


def test_examples_are_shown_where_they_are_asked_for(folder):
    file = folder / "shots.yaml"
    file.write_text((folder / "quiz_a.yaml").read_text().replace("quiz_a", "shots") + "fewshot_split: test\n")
    (folder / "none.yaml").write_text(file.read_text().replace("shots", "none") + "num_fewshot: 0\n")
    for name, asked, shown in (("shots", 2, 2), ("shots", None, 0), ("none", 2, 0)):
        harness = Harness(task(folder, name, num_fewshot=asked))
        harness.load()
        assert harness._loaded["tasks"][name].get_config("num_fewshot") == shown


def test_questions_go_through_the_chat_template_with_their_examples_as_turns(folder, model):
    (folder / "chat.yaml").write_text((folder / "quiz_a.yaml").read_text().replace("quiz_a", "chat") + "fewshot_split: test\n")
    for chat, start, turns in ((True, "<user>Q: ", 3), (False, "Q: ", 0)):
        harness = Harness(task(folder, "chat", chat=chat, num_fewshot=2, limit=2))
        harness.measure(model, tiny.tokenizer())
        asked = harness._loaded["tasks"]["chat"].instances[0].args[0]
        assert asked.startswith(start)
        assert asked.count("<user>") == turns
        assert asked.count("Q: ") == 3


def test_what_decides_the_scores_is_in_the_identity(tmp_path):
    folder = public.tasks(tmp_path)
    before = identity(expand(["pooled"]), (folder,))
    assert identity(expand(["pooled"]), (folder,)) == before
    (folder / "b.jsonl").write_text((folder / "a.jsonl").read_text())
    assert identity(expand(["pooled"]), (folder,)) != before
    (folder / "plain.yaml").write_text((folder / "pooled.yaml").read_text().replace("pooled", "plain"))
    one_way = identity(expand(["plain"]), (folder,))
    (folder / "plain.yaml").write_text((folder / "plain.yaml").read_text().replace("true", "false"))
    assert identity(expand(["plain"]), (folder,)) != one_way, "how a group averages"
    (folder / "quiz_a.yaml").write_text((folder / "quiz_a.yaml").read_text().replace("A:", "Answer:"))
    after = identity(expand(["quiz_a"]), (folder,))
    (folder / "quiz_a.yaml").write_text((folder / "quiz_a.yaml").read_text().replace("Answer:", "A:"))
    assert identity(expand(["quiz_a"]), (folder,)) != after


def test_evaluate_takes_data_and_benchmarks_together(folder, model):
    from mergetool.evaluate import Task

    rows = [{"prompt": "a", "completion": "b"}]
    found = evaluate(model, [Task("text", ("nll",), rows), task(folder, "quiz_a", limit=3)], tokenizer=tiny.tokenizer())
    assert list(found) == ["text.nll", "public.quiz_a"]
    assert found["public.quiz_a"]["n"] == 3


@pytest.mark.slow  # reads the harness's fourteen thousand YAML files
def test_every_task_of_every_suite_is_in_the_installed_harness_with_its_metric():
    for name, suite in SUITES.items():
        found = HarnessTask(name, (name,), unsafe_code=True).metrics()
        assert len(found) == len(suite.benchmarks) + 1
        assert found[0].name == "average"
        assert all(one.unit != "as the task gives it" for one in found), name
    unsafe = {one.task.partition(":")[0] for one in SUITES["omo-14"].benchmarks if one.runs_code}
    with pytest.raises(RecipeError, match=", ".join(sorted(unsafe))):
        HarnessTask("s", ("omo-14",)).metrics()
    with pytest.raises(RecipeError, match="did you mean 'arc_easy'"):
        HarnessTask("s", ("arc_esy",)).metrics()


def test_suites_account_for_every_benchmark_of_their_papers():
    omo = SUITES["omo-14"]
    public_ones = len(omo.benchmarks) + len(omo.missing) - 1  # code-switching is a category beside the twelve
    assert (public_ones, len(omo.judged)) == (12, 2)
    assert len(SUITES["ama"].benchmarks) == 7
    assert any("Math401" in line for line in not_run(["quiz_a", "omo-14"])["omo-14"])
    assert not_run(["ama"]) == {}
