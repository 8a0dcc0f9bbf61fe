"""A run writes the SFT model's own settings and tokenizer, and what its recipe alters as TRL's own save writes it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from mergetool.align import align, align_recipe
from mergetool.align.algorithms import ALGORITHMS
from mergetool.align.beside import ALTERS, altered, located
from mergetool.align.check import fingerprint
from mergetool.errors import RecipeError
from tests.align.tiny import make_model, recipe_text

SPEAKS = re.compile(r"token(?!s)|template|router|vocab|use_cache")
# Not of the model or its tokenizer: access to the Hub, and how a sampling trainer calls the template.
OTHERS = {"hub_token", "push_to_hub_token", "chat_template_kwargs"}


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_field_that_alters_more_than_weights_is_known(algorithm: str) -> None:
    names = {field.name for field in dataclasses.fields(ALGORITHMS[algorithm].config_class()) if field.init}
    assert {name for name in names if SPEAKS.search(name)} - OTHERS == names & set(ALTERS)


def written_by_trl(folder: Path, out: Path, algorithm: str, **settings: Any) -> None:
    """One step of TRL's own trainer, and its own save."""
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    kinds = {"sft": (trl.SFTTrainer, trl.SFTConfig), "dpo": (trl.DPOTrainer, trl.DPOConfig)}
    trainer, config = kinds[algorithm]
    args = config(out, max_steps=1, report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False, **settings)
    rows = [json.loads(line) for line in (folder / f"{algorithm}.jsonl").read_text().splitlines()]
    model = AutoModelForCausalLM.from_pretrained(folder / "sft", dtype="float32")
    found = trainer(
        model, args=args, train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(folder / "sft")
    )
    found.train()
    found.save_model(str(out))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("beside")
    make_model(place / "sft", seed=1)
    talk = [{"role": "user", "content": "how is it"}, {"role": "assistant", "content": "good"}]
    (place / "sft.jsonl").write_text((json.dumps({"messages": talk}) + "\n") * 4)
    pair = {"prompt": talk[:1], "chosen": talk[1:], "rejected": [{"role": "assistant", "content": "bad"}]}
    (place / "dpo.jsonl").write_text((json.dumps(pair) + "\n") * 4)
    template = (place / "sft" / "chat_template.jinja").read_text()
    (place / "other.jinja").write_text("big " + template)
    make_model(place / "wordy", seed=2)
    from transformers import AutoTokenizer

    wordy = AutoTokenizer.from_pretrained(place / "wordy")
    wordy.add_tokens(["<think>", "</think>"])
    wordy.chat_template = "small " + template
    wordy.save_pretrained(place / "wordy")
    return place


def settings_of(place: Path) -> dict[str, Any]:
    """What transformers reads of a checkpoint beside its weights."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    tokenizer, config = AutoTokenizer.from_pretrained(place), AutoConfig.from_pretrained(place)
    generation = GenerationConfig.from_pretrained(place)
    return {
        "template": tokenizer.chat_template,
        "words": tokenizer.get_vocab(),
        "tokens": (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token),
        "config": (config.eos_token_id, config.pad_token_id, config.vocab_size, config.bos_token_id),
        "generation": (generation.eos_token_id, generation.pad_token_id, generation.bos_token_id),
    }


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        ("sft", {"eos_token": "<user>"}),
        ("sft", {"pad_token": "<unk>"}),
        ("dpo", {"pad_token": "<unk>"}),
        ("sft", {"chat_template_path": "other.jinja", "eos_token": "<assistant>"}),
        ("sft", {"chat_template_path": "wordy"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_what_a_recipe_alters_is_written_as_trl_writes_it(folder: Path, tmp_path: Path, algorithm: str, settings: dict) -> None:
    paths = {key: str(folder / value) for key, value in settings.items() if key == "chat_template_path"}
    written_by_trl(folder, tmp_path / "theirs", algorithm, **{**settings, **paths})
    recipe = {"sft_model": "sft", "algorithm": algorithm, "data": {"train": f"{algorithm}.jsonl"}}
    recipe["training"] = {"max_steps": 1, "use_cpu": True, **settings}
    result = align(align_recipe(recipe, folder), tmp_path / "ours")
    assert settings_of(tmp_path / "ours") == settings_of(tmp_path / "theirs")
    assert result.drift["norm"] > 0
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(tmp_path / "ours")


def test_what_it_does_not_alter_stays_the_sft_models_own(folder: Path, tmp_path: Path) -> None:
    recipe = {
        "sft_model": "sft",
        "algorithm": "sft",
        "data": {"train": "sft.jsonl"},
        "training": {"max_steps": 1, "use_cpu": True},
    }
    align(align_recipe(recipe, folder), tmp_path / "out")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / "sft" / name).read_bytes()
    assert json.loads((tmp_path / "out" / "config.json").read_bytes()).get("pad_token_id") == json.loads(
        (folder / "sft" / "config.json").read_bytes()
    ).get("pad_token_id")


def test_keys_of_the_configuration_follow_their_fields() -> None:
    assert altered({"use_cache": True, "router_aux_loss_coef": 0.1}) == (
        "output_router_logits", "router_aux_loss_coef", "use_cache",
    )  # fmt: skip
    assert altered({"learning_rate": 1.0, "eos_token": None}) == ()


def test_a_template_is_found_beside_the_recipe_and_known_by_what_it_holds(folder: Path, tmp_path: Path) -> None:
    assert located({"chat_template_path": "org/model"}, folder) == {"chat_template_path": "org/model"}
    with pytest.raises(RecipeError, match="no such file"):
        located({"chat_template_path": "none.jinja"}, folder)
    template = tmp_path / "t.jinja"
    found = []
    for text in ("one", "two"):
        template.write_text(text)
        values = recipe_text(folder, base_model=None, algorithm="sft", data={"train": str(folder / "sft.jsonl")})
        found.append(fingerprint(align_recipe({**values, "training": {"chat_template_path": str(template)}}, folder)))
    assert found[0] != found[1]
