"""The embedded lab is what its README says: small, loadable, reproducible, and with clean splits."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from mergetool.lab import CHECKPOINTS, DATA, ROOT, copy_lab, lab_path
from tools.lab import data


@cache
def rows(name: str) -> list[dict]:
    return data.read(lab_path(name))


@cache
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(lab_path("sft"))


def test_importing_the_lab_imports_nothing_heavy():
    code = "import sys, mergetool.lab; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in Path(data.__file__).parent.glob("*.py") if path.stem != "__init__")
)
def test_every_script_of_the_lab_imports(name):
    importlib.import_module(f"tools.lab.{name}")


def test_all_weights_together_stay_within_three_megabytes():
    assert sum(lab_path(name).joinpath("model.safetensors").stat().st_size for name in CHECKPOINTS) <= 3_000_000


def test_all_data_together_stay_within_four_hundred_kilobytes():
    assert sum(lab_path(name).stat().st_size for name in DATA) < 400_000


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(KeyError, match="sft_train"):
        lab_path("ppo")


def test_data_generation_gives_exactly_the_shipped_files():
    made = data.make_rows(0)
    assert set(made) == set(DATA)
    for name, expected in made.items():
        assert rows(name) == expected, name


def test_no_row_occurs_in_two_splits_and_no_row_twice():
    seen: dict[str, str] = {}
    for name in DATA:
        if name == "skills_train":  # a part of sft_train, as the next test has it
            continue
        for row in rows(name):
            text = json.dumps(row, sort_keys=True)
            assert text not in seen, f"{name} and {seen.get(text)}: {text}"
            seen[text] = name


def test_skills_train_is_sft_train_without_open_chat():
    assert rows("skills_train") == [row for row in rows("sft_train") if row["skill"] != "chat"]


def test_no_prompt_is_shared_by_splits():
    for kind in (
        ("preferences_train", "preferences_validation", "preferences_test"),
        ("sft_train", "skills_validation", "skills_test"),
    ):
        sets = [{row["prompt"] for row in rows(name)} for name in kind]
        assert not sets[0] & sets[1]
        assert not sets[0] & sets[2]
        assert not sets[1] & sets[2]


def test_no_held_out_problem_is_stated_in_the_base_corpus_except_facts():
    world = data.world_of(0)
    held_out = {p for problems in world.held_out.values() for p in problems}
    rng = world.rng("probe")
    for skill in ("add", "larger", "reverse", "sort", "translate", "fact"):
        drawn = {world.problem(rng, skill) for _ in range(2000)}
        assert not drawn & held_out


@pytest.mark.parametrize("name", DATA[:-1])
def test_no_token_crosses_the_border_between_prompt_and_answer(name):
    answers = ("chosen", "rejected") if name.startswith("preferences") else ("completion",)
    found = rows(name)
    prompts = tokenizer()([row["prompt"] for row in found])["input_ids"]
    for answer in answers:
        whole = tokenizer()([row["prompt"] + row[answer] for row in found])["input_ids"]
        assert all(ids[: len(prompt)] == prompt for ids, prompt in zip(whole, prompts, strict=True))
        alone = tokenizer()([row[answer] for row in found], add_special_tokens=False)["input_ids"]
        assert all(ids[len(prompt) :] == rest for ids, prompt, rest in zip(whole, prompts, alone, strict=True))


def test_text_survives_the_tokenizer_and_the_chat_template_writes_the_prompts_of_the_data():
    for row in rows("skills_test")[::10] + rows("sft_train")[::100]:
        ids = tokenizer()(row["completion"], add_special_tokens=False)["input_ids"]
        assert tokenizer().decode(ids) == row["completion"]
    prompt = rows("skills_test")[0]["prompt"]
    said = prompt.removeprefix("<|user|>").removesuffix("<|assistant|>")
    ids = tokenizer().apply_chat_template([{"role": "user", "content": said}], add_generation_prompt=True)["input_ids"]
    assert ids == tokenizer()(prompt)["input_ids"]


def test_every_checkpoint_loads_and_has_the_same_tokenizer():
    import torch
    from transformers import AutoModelForCausalLM

    files = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    for name in CHECKPOINTS:
        model = AutoModelForCausalLM.from_pretrained(lab_path(name))
        assert model.dtype == torch.bfloat16
        assert model.config.tie_word_embeddings
        assert model.config.vocab_size == len(tokenizer())
        for file in files:
            assert lab_path(name).joinpath(file).read_bytes() == lab_path("base").joinpath(file).read_bytes()


def test_sft_knows_the_skills_and_base_does_not_know_the_instructions():
    import torch
    from transformers import AutoModelForCausalLM

    from tools.lab import measure

    probe = rows("skills_validation")[::6]
    assert len(probe) == 40
    found = {}
    for name in ("base", "sft"):
        model = AutoModelForCausalLM.from_pretrained(lab_path(name), dtype=torch.float32)
        found[name] = measure.skills(model, tokenizer(), probe)
    assert found["sft"]["exact_match"] >= 0.75
    assert found["base"]["exact_match"] <= 0.3
    assert found["sft"]["nll"] < found["base"]["nll"]


def test_copy_lab_gives_a_complete_copy(tmp_path):
    out = copy_lab(tmp_path / "lab")
    for part in ("triple", "data"):
        copied = {path.relative_to(out) for path in (out / part).rglob("*") if path.is_file()}
        assert copied == {path.relative_to(ROOT) for path in (ROOT / part).rglob("*") if path.is_file()}
