"""A head written beside the base's tensors counts where it differs from the embedding, and only there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mergetool.merge import MergeRecipe, merge_tensors, merge_to_directory, plan_merge
from tests.architecture.small import rewrite


@pytest.fixture
def pair(saved) -> tuple[Path, Path]:
    return saved("Gemma2ForCausalLM", "a", 1), saved("Gemma2ForCausalLM", "b", 2)


def plan(*directories: Path):
    models = [{"model": str(d), "parameters": {"weight": 0.5}} for d in directories]
    return plan_merge(MergeRecipe.model_validate({"merge_method": "linear", "models": models}))


def test_a_copy_of_the_embedding_leaves_the_base_as_it_is(pair) -> None:
    a, b = pair
    plain = dict(merge_tensors(plan(a, b)))
    rewrite(b, lm_head__weight=load_file(b / "model.safetensors")["model.embed_tokens.weight"])
    merge_to_directory(plan(a, b), a.parent / "out")
    out = load_file(a.parent / "out/model.safetensors")
    assert out.keys() == plain.keys()
    assert all(torch.equal(out[name], plain[name]) for name in plain)
    ours, theirs = (json.loads((place / "config.json").read_text()) for place in (a.parent / "out", a))
    assert ours == theirs


def test_a_copy_in_the_base_stays_and_its_config_too(pair) -> None:
    a, b = pair
    rewrite(b, lm_head__weight=load_file(b / "model.safetensors")["model.embed_tokens.weight"])
    merge_to_directory(plan(b, a), a.parent / "out")
    out = load_file(a.parent / "out/model.safetensors")
    assert torch.equal(out["lm_head.weight"], out["model.embed_tokens.weight"])
    ours, theirs = (json.loads((place / "config.json").read_text()) for place in (a.parent / "out", b))
    assert ours == theirs


@pytest.mark.parametrize("turned", [False, True])
def test_a_head_of_its_own_makes_the_result_untied(pair, turned: bool) -> None:
    from transformers import Gemma2ForCausalLM

    a, b = pair
    head = torch.ones(96, 32)
    rewrite(b, lm_head__weight=head)
    merge_to_directory(plan(*((b, a) if turned else (a, b))), a.parent / "out")
    loaded, info = Gemma2ForCausalLM.from_pretrained(a.parent / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert loaded.config.tie_word_embeddings is False
    embedding = load_file(a / "model.safetensors")["model.embed_tokens.weight"]
    torch.testing.assert_close(loaded.lm_head.weight.detach(), (embedding + head) / 2)
