"""Several models are measured on the same rows and held against the first; answers are written where they are asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model

from mergetool.cli.evaluate_output import differences
from tests.cli.shell import refusal, run
from tests.evaluate import tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    folder = tmp_path_factory.mktemp("place")
    tiny.save(folder / "one", 1)
    tiny.save(folder / "two", 2)
    rows = [{"prompt": f"say {at // 2}", "completion": str(at)} for at in range(8)]
    (folder / "skills.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    adapted = get_peft_model(tiny.llama(1), LoraConfig(r=2, target_modules=["q_proj"]))
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    adapted.save_pretrained(folder / "adapter")
    return folder


def test_each_further_model_is_held_against_the_first(place: Path, monkeypatch) -> None:
    monkeypatch.chdir(place)
    words = ("evaluate", "one", "two", "one+adapter", "--tax", "skills.jsonl", "--tasks", "nll,exact_match", "--device", "cpu")
    facts = json.loads(run(*words, "--json", "--output-path", "out", "--log-samples")[0])
    assert [one["model"] for one in facts["models"]] == ["one", "two", "one+adapter"]
    value = {one["model"]: one["scores"]["skills.nll"]["value"] for one in facts["models"]}
    away = facts["differences"]["two"]["skills.nll"]
    assert away["mean"] == pytest.approx(value["two"] - value["one"])
    assert (away["rows"], away["clusters"]) == (8, 4), "two rows of one prompt are one draw"
    assert value["one+adapter"] != pytest.approx(value["one"], abs=1e-6)
    assert not {"rows", "answers", "prompts", "clusters"} & facts["models"][0]["scores"]["skills.exact_match"].keys()
    assert json.loads((place / "out" / "results.json").read_text()) == facts
    samples = [json.loads(line) for line in (place / "out" / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 3 * 8
    assert samples[0].keys() == {"model", "metric", "row", "prompt", "answer", "score"}
    assert "less one, row by row" in run(*words[:3], *words[4:])[0]


def test_an_adapter_is_measured_as_peft_applies_it(place: Path, monkeypatch) -> None:
    from peft import PeftModel

    from mergetool.data import completions
    from mergetool.evaluate import Task, evaluate

    monkeypatch.chdir(place)
    words = ("evaluate", "one+adapter", "--tax", "skills.jsonl", "--tasks", "nll", "--device", "cpu", "--json")
    ours = json.loads(run(*words)[0])["scores"]["skills.nll"]["value"]
    live = PeftModel.from_pretrained(tiny.llama(1), place / "adapter").merge_and_unload()
    task = Task("skills", ("nll",), completions(place / "skills.jsonl"))
    theirs = evaluate(live, [task], tokenizer=tiny.tokenizer())["skills.nll"]["value"]
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_what_cannot_be_written_or_compared_is_one_line(place: Path, monkeypatch) -> None:
    monkeypatch.chdir(place)
    assert "--log-samples needs --output-path" in refusal("evaluate", "one", "--tax", "skills.jsonl", "--log-samples")
    assert "one is named twice" in refusal("evaluate", "one", "one", "--tax", "skills.jsonl")


def test_a_score_without_rows_has_no_difference() -> None:
    assert differences({"a.bleu": {"value": 1.0}}, {"a.bleu": {"value": 2.0}}) == {}
