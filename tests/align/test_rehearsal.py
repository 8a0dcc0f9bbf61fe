"""What TRL's constructor refuses is told by `check`, from a model without weights, for every algorithm."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mergetool.align import align_recipe
from mergetool.align.algorithms import ALGORITHMS
from mergetool.align.check import rehearsed_check
from mergetool.errors import DataError, MergetoolError, RecipeError
from tests.align.tiny import recipe_text

TALK = [{"role": "user", "content": "how is it"}, {"role": "assistant", "content": "good"}]


@pytest.fixture(scope="module")
def folder(triple, tmp_path_factory) -> Path:
    """An SFT model whose weights cannot be read, and rows."""
    place = tmp_path_factory.mktemp("rehearsal")
    shutil.copytree(triple / "sft", place / "sft")
    (place / "rlhf").symlink_to(place / "sft")
    weights = place / "sft" / "model.safetensors"
    header = 8 + int.from_bytes(weights.read_bytes()[:8], "little")
    size = weights.stat().st_size
    with weights.open("r+b") as file:  # nothing but the header
        file.truncate(header)
        file.truncate(size)
    (place / "talk.jsonl").write_text((json.dumps({"messages": TALK}) + "\n") * 4)
    shutil.copy(triple / "train.jsonl", place / "train.jsonl")
    (place / "rewards.py").write_text("def one(completions, **columns): return [1.0] * len(completions)\n")
    return place


def check(folder: Path, algorithm: str, train: str = "train.jsonl", **training: Any) -> dict:
    recipe = recipe_text(folder, base_model=None, algorithm=algorithm, data={"train": str(folder / train)})
    recipe["training"] = {"use_cpu": True, **training}
    if ALGORITHMS[algorithm].rewarded:
        recipe["reward"] = "rewards.py:one"
    if ALGORITHMS[algorithm].taught:
        recipe["policy"] = "rlhf"
    return rehearsed_check(align_recipe(recipe, folder))


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_sound_recipe_passes_without_weights(folder: Path, algorithm: str) -> None:
    if algorithm == "sft":
        assert check(folder, algorithm, "talk.jsonl")["train"]["rows"] == "completions of messages"
    else:
        assert check(folder, algorithm)["algorithm"] == algorithm


@pytest.mark.parametrize(
    ("algorithm", "training", "says"),
    [
        ("sft", {"eos_token": "<none>"}, r"training\.eos_token: .*<none>"),
        ("sft", {"padding_free": True, "max_length": 32}, r"training\.padding_free"),
        ("sft", {"assistant_only_loss": True}, "training: The tokenizer's chat template|training.*generation"),
        ("dpo", {"pad_token": "<none>"}, r"training\.pad_token"),
        ("dpo", {"report_to": "nobody"}, r"training\.report_to"),
        ("dpo", {"dataloader_drop_last": True, "per_device_train_batch_size": 32}, "a batch needs 32 rows, and there are 24"),
        ("grpo", {"num_generations": 2, "per_device_train_batch_size": 64}, "a batch needs 32 rows, and there are 24"),
    ],
)
def test_what_the_trainer_would_refuse_is_one_line_of_check(folder: Path, algorithm: str, training: dict, says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        check(folder, algorithm, "talk.jsonl" if algorithm == "sft" else "train.jsonl", **training)
    assert "\n" not in str(caught.value)


def test_a_template_that_refuses_a_row_and_a_missing_one_are_told(folder: Path, tmp_path: Path) -> None:
    sft = shutil.copytree(folder / "sft", tmp_path / "sft")
    shutil.copy(folder / "talk.jsonl", tmp_path)
    (sft / "chat_template.jinja").write_text("{{ raise_exception('only one role') }}")
    with pytest.raises(MergetoolError, match="only one role"):
        check(tmp_path, "sft", "talk.jsonl")
    (sft / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match="no chat template"):
        check(tmp_path, "sft", "talk.jsonl")
