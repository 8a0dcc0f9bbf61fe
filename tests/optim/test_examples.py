"""Every example in docs/optimizers.md runs, on a model of a few thousand weights and for two steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.align.tiny import make_pairs, make_triple

PAGE = Path(__file__).parents[2] / "docs" / "optimizers.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def title(code: str) -> str:
    return next(
        (w for w in ("DPOT", "KTOT", "GRPOT", "TrainingArg", "accelerate", "Adafactor", "peft", "for step") if w in code),
        "first",
    )


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triple")
    make_triple(folder)
    make_pairs(folder / "train.jsonl", 16)
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder / "base"), settings).save_pretrained(folder / "adapter")
    return folder


def test_the_page_has_an_example_of_each_trainer() -> None:
    assert {title(code) for code in EXAMPLES} >= {
        "DPOT",
        "KTOT",
        "GRPOT",
        "TrainingArg",
        "accelerate",
        "peft",
        "for step",
    }


@pytest.mark.parametrize("code", EXAMPLES, ids=title)
def test_the_example_runs_and_moves_the_model(code: str, triple: Path, tmp_path: Path, monkeypatch) -> None:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.chdir(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(triple / "sft")
    before = [p.detach().clone() for p in model.parameters()]
    names = {
        "base": triple / "base",
        "sft": triple / "sft",
        "adapter": triple / "adapter",
        "model": model,
        "tokenizer": AutoTokenizer.from_pretrained(triple / "sft"),
        "pairs": Dataset.from_json(str(triple / "train.jsonl"), cache_dir=str(tmp_path / "cache")),
    }
    short = code.replace("max_steps=100", "max_steps=2, use_cpu=True").replace('"total_steps": 100', '"total_steps": 2')
    exec(compile(short, str(PAGE), "exec"), names)
    if ".step()" in short or ".train()" in short:
        # a density of 5e-4 keeps few of a few thousand weights: one of them is enough
        after = names["model"].parameters()
        assert title(code) == "peft" or any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
