"""The harness gives its own numbers on the live model, on each half or on all documents."""

import json

import pytest

from mergetool.errors import DataError, RecipeError
from mergetool.evaluate import Harness
from tests.evaluate import public, tiny
from tests.evaluate.public import task


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
