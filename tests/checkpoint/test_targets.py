"""Adapters on tied weights and in the names of the live model: the logits are those of PEFT's model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergetool.errors import CheckpointError
from mergetool.hub.references import open_layout
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge

IDS = torch.tensor([[1, 5, 9, 20, 33]])


def adapted(base: Path, out: Path, kind: str, **settings: object):
    """PEFT's model with random adapters, saved; the live model."""
    import transformers
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    model = get_peft_model(getattr(transformers, kind).from_pretrained(base), LoraConfig(r=4, **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(out)
    return model.eval()


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
    ],
    ids=["both saved", "head saved", "lora on the head", "lora on the embedding"],
)
@pytest.mark.filterwarnings("ignore")
def test_an_adapter_on_one_of_two_tied_weights_gives_an_untied_model(saved, tmp_path: Path, settings: dict) -> None:
    from transformers import LlamaForCausalLM

    base = saved("LlamaForCausalLM", "base")
    theirs = adapted(base, tmp_path / "adapter", "LlamaForCausalLM", **settings)
    models = [{"model": f"{base}+{tmp_path / 'adapter'}", "parameters": {"weight": 1.0}}]
    merge_to_directory(plan_merge(MergeRecipe.model_validate({"merge_method": "linear", "models": models})), tmp_path / "out")
    ours, info = LlamaForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert ours.config.tie_word_embeddings is False
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(IDS).logits, theirs(IDS).logits, rtol=1e-5, atol=1e-5)


def test_an_adapter_on_fused_experts_is_refused_by_name(saved, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = saved("MixtralForCausalLM", "base")
    adapted(base, tmp_path / "adapter", "MixtralForCausalLM", target_modules=["q_proj"])
    file = tmp_path / "adapter/adapter_model.safetensors"
    tensors = load_file(file)
    tensors["base_model.model.model.layers.0.mlp.experts.gate_up_proj"] = torch.zeros(4, 96, 32)
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"adapts 'model.layers.0.mlp.experts.gate_up_proj', which is several tensors in"):
        open_layout(f"{base}+{tmp_path / 'adapter'}")
