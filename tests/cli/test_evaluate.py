"""mergetool evaluate: metrics, benchmarks and judges by name; what cannot be measured is one line and exit 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mergetool.cli.main import app
from tests.evaluate import endpoint, public, tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    tiny.save(folder / "policy", 1)
    tiny.save(folder / "sft", 2)
    tiny.reward_model(folder / "rm")
    public.tasks(folder / "tasks")
    rows = {
        "pairs": [{"prompt": f"q{at}", "chosen": f" yes {at}!", "rejected": " no"} for at in range(4)],
        "skills": [{"prompt": f"say {at}", "completion": str(at)} for at in range(4)],
        "text": [{"text": "once upon a time"}],
        "asked": [{"question_id": at, "turns": [f"ask {at}", "and then?"]} for at in range(3)],
    }
    for name, some in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return folder


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("OPENAI_API_KEY", endpoint.KEY)
    monkeypatch.setenv("COLUMNS", "200")


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["evaluate", "policy", *words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def scores(*words: str) -> dict[str, dict]:
    code, out, err = run(*words, "--json")
    assert code == 0, err
    return json.loads(out)["scores"]


def test_without_names_everything_is_taken_that_costs_no_second_model() -> None:
    found = scores("--reward", "pairs.jsonl", "--tax", "skills.jsonl", "--reference", "sft")
    assert list(found) == [
        "pairs.preference_accuracy", "pairs.reward_margin", "pairs.length_controlled_margin",
        "skills.nll", "skills.exact_match",
    ]  # fmt: skip
    assert list(scores("--tax", "text.jsonl")) == ["text.nll"]
    assert list(scores("--prompts", "asked.jsonl")) == ["asked.code_switching"]
    assert list(scores("--prompts", "asked.jsonl", "--reward-model", "rm")) == ["asked.reward_model", "asked.code_switching"]


def test_metrics_and_benchmarks_are_named_together() -> None:
    names = "kl_to_sft,quiz_a,say_em:exact_match"
    found = scores("--tasks", names, "--tax", "skills.jsonl", "--reference", "sft", "--include", "tasks", "--limit", "3")
    assert list(found) == ["skills.kl_to_sft", "public.average", "public.quiz_a", "public.say_em:exact_match"]
    assert {one["n"] for one in found.values()} == {3, 6}
    assert all({"value", "low", "high", "unit", "higher_is_better"} <= one.keys() for one in found.values())


def test_a_metric_of_prompts_is_taken_on_the_file_of_its_side_where_no_prompts_are_given() -> None:
    found = scores(
        "--tasks", "reward_model,code_switching", "--reward", "pairs.jsonl", "--tax", "skills.jsonl",
        "--reference", "sft", "--reward-model", "rm", "--max-new-tokens", "3",
    )  # fmt: skip
    assert list(found) == ["pairs.reward_model", "skills.code_switching"]


def test_a_judge_is_asked_over_the_network() -> None:
    common = ["--tasks", "win_rate", "--prompts", "asked.jsonl", "--reference", "sft", "--judge-model", "judge"]
    with endpoint.judge(lambda *_: "[[A]]") as seen:
        found = scores(*common, "--judge-url", seen.url, "--max-new-tokens", "4")
        assert found["asked.win_rate"]["value"] == 0.5
        asked = [endpoint.part(body["messages"][-1]["content"], "user") for body in seen.bodies]
    assert asked.pop(0) == "What is 2 + 3?", "asked before a model is loaded"
    assert set(asked) <= {"ask 0", "ask 1", "ask 2"}
    assert len(asked) in (2, 4, 6), "both orders; equal answers are not asked about"


def test_the_table_says_unit_and_direction() -> None:
    code, out, _ = run(
        "--tax", "skills.jsonl", "--tasks", "nll,code_switching,quiz_a", "--include", "tasks", "--max-new-tokens", "2"
    )
    assert code == 0
    for words in ("nats/token", "share of answers", "share of rows", "lower", "higher", "95 % over rows"):
        assert words in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "nothing to measure"),
        ("--tasks ,", "names nothing"),
        ("--tasks nll", "--tasks nll needs data"),
        ("--tasks nll --prompts asked.jsonl", "--tasks nll cannot be taken on the data given; add --tax"),
        ("--tasks reward_model --prompts asked.jsonl", "needs --reward-model"),
        ("--tasks reward_model --prompts asked.jsonl --reward-model sft", "is LlamaForCausalLM, not a reward model"),
        ("--tasks win_rate --prompts asked.jsonl --reference sft", "needs --judge-url and --judge-model"),
        ("--prompts asked.jsonl --judge-url http://h/v1", "--judge-url and --judge-model belong together"),
        ("--tasks win_rate --prompts asked.jsonl --reference sft --judge-url http://h/v1 --judge-model m --judge-key-env NO",
         "variable NO is not set"),
        ("--prompts asked.jsonl --judge-url h --judge-model m", "'h' is no address"),
        ("--tasks kl_to_sft --tax skills.jsonl", "--tasks kl_to_sft needs --reference"),
        ("--reward pairs.jsonl", "--reward needs --reference"),
        ("--tasks quiz_a:bleu --include tasks", "has no metric 'bleu'; known: acc, acc_norm"),
        ("--tasks quizzes --include tasks", "--tasks: 'quizzes' is a tag of 2 tasks"),
        ("--tasks quiz_a --include none", "--include: "),
        ("--tax skills.jsonl --template x", "--template has no {prompt}"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_one_line(words: str, says: str, place: Path) -> None:
    before = sorted(place.rglob("*"))
    code, out, err = run(*words.split())
    assert (code, out) == (2, "")
    line = err.splitlines()[-1]
    assert line.startswith("mergetool: ")
    assert says in line
    assert ";" in line, "no next step"
    assert sorted(place.rglob("*")) == before
