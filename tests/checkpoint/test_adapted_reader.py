"""A model with an adapter is what PEFT makes of it: PeftModel.from_pretrained(...).merge_and_unload(), feature by feature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergetool.checkpoint.adapted_reader import AdaptedReader
from mergetool.checkpoint.open import open_reader
from mergetool.checkpoint.weights import InFiles
from mergetool.errors import CheckpointError
from mergetool.hub.references import open_layout

LLAMA, GPT2, MIXTRAL = "LlamaForCausalLM", "GPT2LMHeadModel", "MixtralForCausalLM"
Q = {"target_modules": ["q_proj", "down_proj"]}
EXPERTS = {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}

FEATURES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "rslora": (LLAMA, {}, {**Q, "use_rslora": True}),
    "rank and alpha by pattern": (
        LLAMA, {}, {**Q, "rank_pattern": {"down_proj": 2}, "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 20}},
    ),
    "one layer": (LLAMA, {}, {**Q, "layers_to_transform": [1]}),
    "excluded": (LLAMA, {}, {**Q, "exclude_modules": ["model.layers.0.self_attn.q_proj"]}),
    "all biases": (LLAMA, {"attention_bias": True}, {**Q, "bias": "all"}),
    "biases of its layers": (LLAMA, {"attention_bias": True}, {**Q, "bias": "lora_only"}),
    "a bias of B": (LLAMA, {"attention_bias": True}, {"target_modules": ["q_proj"], "lora_bias": True}),
    "modules saved whole": (LLAMA, {"tie_word_embeddings": False}, {**Q, "modules_to_save": ["lm_head", "input_layernorm"]}),
    "trained tokens": (LLAMA, {"tie_word_embeddings": False}, {**Q, "trainable_token_indices": [3, 95, 7]}),
    "trained tokens, tied": (LLAMA, {}, {**Q, "trainable_token_indices": {"embed_tokens": [3, 95, 7]}}),
    "dora": (LLAMA, {"tie_word_embeddings": False}, {"target_modules": ["q_proj", "k_proj", "down_proj"], "use_dora": True}),
    "dora on an embedding": (LLAMA, {"tie_word_embeddings": False}, {"target_modules": ["embed_tokens"], "use_dora": True}),
    "an embedding": (LLAMA, {"tie_word_embeddings": False}, {"target_modules": ["embed_tokens", "v_proj"]}),
    "pissa": (LLAMA, {}, {**Q, "init_lora_weights": "pissa"}),
    "pissa with dora": (LLAMA, {}, {**Q, "init_lora_weights": "pissa", "use_dora": True}),
    "olora": (LLAMA, {}, {**Q, "init_lora_weights": "olora"}),
    "orthogonal": (LLAMA, {}, {**Q, "init_lora_weights": "orthogonal"}),
    "gaussian": (LLAMA, {}, {**Q, "init_lora_weights": "gaussian"}),
    "transposed layers": (GPT2, {}, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "transposed layers and a head that is not": (
        GPT2, {"tie_word_embeddings": False}, {"target_modules": ["c_proj", "lm_head"], "fan_in_fan_out": True},
    ),
    "transposed layers with dora": (GPT2, {}, {"target_modules": ["c_attn", "c_proj"], "use_dora": True}),
    "transposed layers with pissa": (
        GPT2, {}, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "init_lora_weights": "pissa"},
    ),
    "experts": (MIXTRAL, {}, EXPERTS),
    "experts, ranks by pattern": (MIXTRAL, {}, {**EXPERTS, "rank_pattern": {"experts.down_proj": 2}, "use_rslora": True}),
    "experts of one kind, and attention": (
        MIXTRAL, {}, {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.down_proj"]},
    ),
    "experts that are stored transposed": ("GptOssForCausalLM", {}, EXPERTS),
    "convolutions": ("WhisperForConditionalGeneration", {}, {"target_modules": ["conv1", "conv2", "q_proj"]}),
    "convolutions with dora": ("WhisperForConditionalGeneration", {}, {"target_modules": ["conv2"], "use_dora": True}),
}  # fmt: skip


def trained(base: Path, out: Path, kind: str, settings: dict[str, Any], pickled: bool = False) -> None:
    """An adapter that looks trained, saved by PEFT."""
    import transformers
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    model = getattr(transformers, kind).from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 6, **settings}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad or "lora_" in name:
                scale = 0.5 if "magnitude" in name else 0.1
                parameter.add_(torch.rand_like(parameter) * scale)
    model.save_pretrained(out, safe_serialization=not pickled)


def by_peft(base: Path, adapter: Path, kind: str) -> dict[str, torch.Tensor]:
    import transformers
    from peft import PeftModel

    model = getattr(transformers, kind).from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()


def small(kind: str, folder: Path, config: dict[str, Any]) -> Path:
    import transformers

    from tests.architecture.families import shrunk

    torch.manual_seed(1)
    cls = getattr(transformers, kind)
    settings = shrunk(cls.config_class(), kind)
    for key, value in config.items():
        setattr(settings, key, value)
    if kind == LLAMA:
        settings.tie_word_embeddings = config.get("tie_word_embeddings", True)
    cls(settings).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.filterwarnings("ignore")
def test_a_feature_is_read_as_peft_merges_it(tmp_path: Path, feature: str) -> None:
    kind, config, settings = FEATURES[feature]
    base = small(kind, tmp_path / "base", config)
    trained(base, tmp_path / "adapter", kind, settings)
    want = by_peft(base, tmp_path / "adapter", kind)
    layout = open_layout(f"{base}+{tmp_path / 'adapter'}")
    reader, ours = open_reader(layout), InFiles(layout)
    assert isinstance(reader, AdaptedReader)
    plain, changed = InFiles(open_layout(base)), 0
    for name, value in want.items():
        found = ours.find(name)
        assert found is not None, name
        got = ours.part(found, 0, value.numel())
        torch.testing.assert_close(got.view(value.shape), value, rtol=2e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")
        before = plain.find(name)
        assert before is not None
        changed += not torch.equal(value.flatten(), plain.part(before, 0, value.numel()))
    assert changed > 0
    for name, info in layout.tensors.items():
        if info.numel > 12:
            part = reader.block(name, 5, info.numel - 6)
            torch.testing.assert_close(part, reader.tensor(name).flatten()[5 : info.numel - 6], rtol=1e-6, atol=1e-7)


@pytest.mark.filterwarnings("ignore")
def test_experts_that_lie_as_one_tensor_are_adapted_there(tmp_path: Path) -> None:
    import transformers

    base = small(MIXTRAL, tmp_path / "base", {})
    transformers.MixtralForCausalLM.from_pretrained(base).save_pretrained(tmp_path / "fused", save_original_format=False)
    trained(base, tmp_path / "adapter", MIXTRAL, EXPERTS)
    apart, fused = (InFiles(open_layout(f"{one}+{tmp_path / 'adapter'}")) for one in (base, tmp_path / "fused"))
    for name in ("model.layers.0.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.down_proj"):
        assert fused.find(name) == name
        assert apart.find(name) == name
        whole = fused.part(name, 0, fused.layout.tensors[name].numel)
        torch.testing.assert_close(whole, apart.part(name, 0, len(whole)))


@pytest.mark.filterwarnings("ignore")
def test_a_residual_base_is_rounded_as_peft_trains_on_it(tmp_path: Path) -> None:
    import transformers
    from peft import PeftModel

    base = small(LLAMA, tmp_path / "base", {})
    transformers.LlamaForCausalLM.from_pretrained(base).bfloat16().save_pretrained(tmp_path / "half")
    trained(tmp_path / "half", tmp_path / "adapter", LLAMA, {**Q, "init_lora_weights": "pissa"})
    theirs = PeftModel.from_pretrained(transformers.LlamaForCausalLM.from_pretrained(tmp_path / "half"), tmp_path / "adapter")
    layer = theirs.base_model.model.model.layers[0].self_attn.q_proj
    want = layer.base_layer.weight.float() + layer.scaling["default"] * (
        layer.lora_B["default"].weight.float() @ layer.lora_A["default"].weight.float()
    )
    reader = open_reader(open_layout(f"{tmp_path / 'half'}+{tmp_path / 'adapter'}"))
    torch.testing.assert_close(reader.tensor("model.layers.0.self_attn.q_proj.weight"), want, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("which", ["adapter", "model"])
def test_pickled_files_read_as_safetensors(tmp_path: Path, which: str) -> None:
    base = small(LLAMA, tmp_path / "base", {})
    trained(base, tmp_path / "adapter", LLAMA, Q)
    want = open_reader(open_layout(f"{base}+{tmp_path / 'adapter'}"))
    file, pickle = {
        "adapter": (tmp_path / "adapter/adapter_model.safetensors", "adapter_model.bin"),
        "model": (base / "model.safetensors", "pytorch_model.bin"),
    }[which]
    tensors = {name: want.tensor(name).clone() for name in want.layout.tensors}
    torch.save(load_file(file), file.parent / pickle)
    file.unlink()
    layout = open_layout(f"{base}+{tmp_path / 'adapter'}")
    reader = open_reader(layout)
    assert all(torch.equal(reader.tensor(name), value) for name, value in tensors.items())
    assert {path.name for path in layout.files} >= {pickle}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "VERA"}, "of kind VERA"),
        ({"bias": "some"}, "with bias: some"),
        ({"lora_alpha": None}, "lora_alpha is null"),
        ({"alora_invocation_tokens": [3]}, "with alora_invocation_tokens"),
        ({"use_qalora": True}, "with use_qalora"),
        ({"layer_replication": [[0, 2]]}, "with layer_replication"),
        ({"kasa_config": {"beta": 1}}, "with kasa_config"),
        ({"a_feature_of_next_year": 3}, "with a_feature_of_next_year"),
        ({"init_lora_weights": "corda"}, "of CorDA, unconverted"),
        ({"init_lora_weights": "lora_ga"}, "of LoRA-GA, unconverted"),
        ({"init_lora_weights": "loftq"}, "of LoftQ, unconverted"),
        ({"init_lora_weights": "pissa_niter_4"}, "of PiSSA by a random decomposition"),
        ({"init_lora_weights": "next_year"}, "with init_lora_weights: next_year"),
        ({"use_dora": True}, "has no magnitude"),
        ({"trainable_token_indices": None, "a_feature_of_next_year": None}, ""),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_read_is_refused_by_name(adapter: tuple[Path, Path], tmp_path: Path, change: dict, says: str) -> None:
    base, folder = adapter
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads((folder / file.name).read_text()), **change}))
    (tmp_path / "adapter_model.safetensors").symlink_to(folder / "adapter_model.safetensors")
    if not says:
        open_layout(f"{base}+{tmp_path}")
        return
    with pytest.raises(CheckpointError, match=says):
        open_layout(f"{base}+{tmp_path}")


@pytest.mark.parametrize("ending", ["lora_E", "lora_diag", "lora_B.bias"])
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_that_nothing_is_known_of_is_refused_by_name(adapter: tuple[Path, Path], tmp_path: Path, ending: str) -> None:
    base, folder = adapter
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors[f"base_model.model.model.layers.0.self_attn.o_proj.{ending}"] = torch.ones(4)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text((folder / "adapter_config.json").read_text())
    with pytest.raises(CheckpointError, match=r"is no part of a LoRA|has a bias and no factors"):
        open_layout(f"{base}+{tmp_path}")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a model, a plain adapter of it)."""
    root = tmp_path_factory.mktemp("plain")
    base = small(LLAMA, root / "base", {})
    trained(base, root / "adapter", LLAMA, Q)
    return base, root / "adapter"
