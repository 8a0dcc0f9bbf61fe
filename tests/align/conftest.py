"""A small real triple for the align tests: three Llama directories, a tokenizer, and preference files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.align.tiny import REWARD, make_model, make_pairs, make_stay, make_triple, recipe_text


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Matrices this small only wait for a second thread: with two, on a busy machine, a step takes 50 times as long."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package", autouse=True)
def own_cache(tmp_path_factory):
    """Tests neither read nor fill the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MERGETOOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def triple(tmp_path_factory) -> Path:
    """A directory with base/, sft/, train.jsonl, eval.jsonl and stay.jsonl; not to be written to."""
    folder = tmp_path_factory.mktemp("triple")
    make_triple(folder)
    make_pairs(folder / "train.jsonl", 24)
    make_pairs(folder / "eval.jsonl", 6, start=100)
    make_stay(folder / "stay.jsonl")
    return folder


@pytest.fixture(scope="session")
def taught(triple, tmp_path_factory) -> Path:
    """The triple with an aligned model, rlhf/, and a file of rewards beside it: any algorithm can start there."""
    folder = tmp_path_factory.mktemp("taught")
    for name in ("base", "sft", "train.jsonl", "eval.jsonl", "stay.jsonl"):
        (folder / name).symlink_to(triple / name)
    make_model(folder / "rlhf", seed=3, like=triple / "sft", step=0.05)
    (folder / "rewards.py").write_text(REWARD)
    return folder


@pytest.fixture(scope="module")
def prompts(triple, tmp_path_factory) -> Path:
    """The triple with prompts and a file of rewards beside it."""
    folder = tmp_path_factory.mktemp("sampling")
    for name in ("base", "sft"):
        (folder / name).symlink_to(triple / name)
    things = ("cat", "dog", "hill", "mat")
    rows = [{"prompt": f"how is the {thing} {i} ", "answer": f"red #### {i}"} for i in range(8) for thing in things]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "rewards.py").write_text(REWARD)
    return folder


@pytest.fixture
def trainer(triple, tmp_path):
    """merging, training -> a trainer that has not begun, and its rows."""
    from mergetool.align import align_recipe
    from mergetool.align.inputs import load_policy, load_rows, load_stay
    from mergetool.align.quiet import quiet
    from mergetool.align.trainer import make_trainer
    from mergetool.align.training import training_config
    from mergetool.align.watch import Stop

    def make(merging: dict, **training: Any) -> tuple[Any, Any]:
        values = recipe_text(triple, merging=merging)
        values["training"] |= training
        recipe, told = align_recipe(values, triple), lambda event, facts: None
        with quiet():
            rows, _ = load_rows(recipe, told)
            stay = load_stay(recipe, triple / "sft", told)
            model, tokenizer = load_policy(recipe, triple / "sft", rows["train"])
            config = training_config(recipe, tmp_path)
            made = make_trainer(recipe, config, model, tokenizer, rows, (None, triple / "sft"), Stop(), told, stay)
        made.current_gradient_accumulation_steps = config.gradient_accumulation_steps
        return made, stay

    return make
