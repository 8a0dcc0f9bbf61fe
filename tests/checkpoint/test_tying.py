"""config.json agrees with the weights that were written about whether the head is one of its own."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from mergetool.checkpoint.tying import untie_if_different
from tests.architecture.small import rewrite


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "Gemma2ForCausalLM"])
def test_a_head_that_differs_is_untied_and_a_copy_is_not(saved, kind: str) -> None:
    import transformers

    directory = saved(kind, "m")
    before = (directory / "config.json").read_bytes()
    assert not untie_if_different(directory)
    rewrite(directory, lm_head__weight=load_file(directory / "model.safetensors")["model.embed_tokens.weight"])
    assert not untie_if_different(directory)
    assert (directory / "config.json").read_bytes() == before
    rewrite(directory, lm_head__weight=torch.ones(96, 32))
    assert untie_if_different(directory)
    assert json.loads((directory / "config.json").read_text())["tie_word_embeddings"] is False
    loaded, info = getattr(transformers, kind).from_pretrained(directory, output_loading_info=True)
    assert not info["missing_keys"]
    assert bool((loaded.lm_head.weight == 1).all())
    assert not bool((loaded.get_input_embeddings().weight == 1).all())
