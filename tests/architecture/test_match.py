"""Whether two checkpoints match has one answer, in either order, whoever asks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mergetool.architecture.match import match
from mergetool.checkpoint.layout import read_layout
from mergetool.errors import CheckpointError, MergetoolError
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
from mergetool.merge.inspection import inspect_model
from mergetool.optim import Reference
from mergetool.study.recipe.check import _one_architecture
from tests.architecture.small import rewrite


def merge(*directories: Path):
    models = [{"model": str(d), "parameters": {"weight": 0.5}} for d in directories]
    return plan_merge(MergeRecipe.model_validate({"merge_method": "linear", "models": models}))


ASKED = {
    "merge": merge,
    "inspect": lambda a, b: inspect_model(str(a), str(b)),
    "reference": lambda a, b: Reference.from_checkpoints(b, a),
    "compare": lambda a, b: _one_architecture(a, [b]),
}


@pytest.fixture(params=["LlamaForCausalLM", "GPT2LMHeadModel"])
def pair(request, saved) -> tuple[Path, Path, str, str]:
    """Two tied models; what they call the embedding and the last layer's norm."""
    kind = request.param
    names = {
        "LlamaForCausalLM": ("model.embed_tokens.weight", "model.norm.weight"),
        "GPT2LMHeadModel": ("transformer.wte.weight", "transformer.ln_f.weight"),
    }[kind]
    return saved(kind, "a", 1), saved(kind, "b", 2), *names


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("turned", [False, True])
def test_a_head_written_by_one_and_a_buffer_of_one_match(pair, asked: str, turned: bool) -> None:
    a, b, embedding, _ = pair
    rewrite(b, lm_head__weight=load_file(b / "model.safetensors")[embedding])
    stack = "model.layers" if "model" in embedding.split(".") else "transformer.h"
    rewrite(b, **{f"{stack}.0.self_attn.rotary_emb.inv_freq".replace(".", "__"): torch.ones(4)})
    ASKED[asked](*((b, a) if turned else (a, b)))


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("turned", [False, True])
def test_a_lost_weight_is_refused_in_the_same_words(pair, asked: str, turned: bool) -> None:
    a, b, _, norm = pair
    rewrite(b, **{norm.replace(".", "__"): None})
    with pytest.raises(MergetoolError, match=rf"b: lacks tensor '{re.escape(norm)}' \(1 in all\) that .*a has") as caught:
        ASKED[asked](*((b, a) if turned else (a, b)))
    assert caught.value.hint == "take checkpoints of one architecture and size"


@pytest.mark.parametrize("turned", [False, True])
def test_an_absent_head_of_an_untied_model_is_not_a_tied_one(saved, turned: bool) -> None:
    a, b = (saved("LlamaForCausalLM", name, tie_word_embeddings=False) for name in "ab")
    rewrite(b, lm_head__weight=None)
    with pytest.raises(CheckpointError, match=r"b: lacks tensor 'lm_head\.weight'"):
        merge(*((b, a) if turned else (a, b)))


def test_a_layer_for_multi_token_prediction_is_carried_from_the_base_and_left_out_of_another(saved) -> None:
    with_, without = saved("LlamaForCausalLM", "with"), saved("LlamaForCausalLM", "without", 1)
    extra = {name: t for name, t in load_file(with_ / "model.safetensors").items() if ".layers.1." in name}
    rewrite(with_, **{name.replace(".1.", ".2.").replace(".", "__"): t + 1 for name, t in extra.items()})
    out = with_.parent / "out"
    manifest = merge_to_directory(merge(with_, without), out)
    merged, own = load_file(out / "model.safetensors"), load_file(with_ / "model.safetensors")
    assert merged.keys() == own.keys()
    assert all(torch.equal(merged[name], own[name]) == (".layers.2." in name or "norm" in name) for name in own)
    assert any("carried over" in line and "layers.2" in line for line in manifest["warnings"])
    manifest = merge_to_directory(merge(without, with_), with_.parent / "other")
    assert load_file(with_.parent / "other/model.safetensors").keys() == load_file(without / "model.safetensors").keys()
    assert any("left out" in line for line in manifest["warnings"])


def test_of_an_architecture_that_transformers_does_not_know_equal_files_match_and_others_are_refused(saved) -> None:
    a, b = saved("LlamaForCausalLM", "a", 1), saved("LlamaForCausalLM", "b", 2)
    for directory in (a, b):
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps({**config, "model_type": "ourown"}))
    assert match([read_layout(a), read_layout(b)]).names == tuple(read_layout(a).tensors)
    rewrite(b, more=torch.ones(2))
    with pytest.raises(CheckpointError, match=r"lacks tensor 'more'.*cannot make a model of model_type 'ourown'"):
        match([read_layout(a), read_layout(b)])


def test_a_plain_merge_does_not_wait_for_transformers(saved) -> None:
    import subprocess
    import sys

    a, b = saved("LlamaForCausalLM", "a", 1), saved("LlamaForCausalLM", "b", 2)
    code = (
        "import sys\nfrom mergetool.merge import MergeRecipe, merge_to_directory, plan_merge\n"
        f"models = [{{'model': m, 'parameters': {{'weight': [0.2, 0.8]}}}} for m in ({str(a)!r}, {str(b)!r})]\n"
        "plan = plan_merge(MergeRecipe.model_validate({'merge_method': 'linear', 'models': models}))\n"
        f"merge_to_directory(plan, {str(a.parent / 'out')!r})\nassert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
