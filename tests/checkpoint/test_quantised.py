"""A quantised checkpoint that cannot be read as numbers is refused by its scheme's name, before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergetool.checkpoint.quantised import SCHEMES
from mergetool.errors import CheckpointError
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
from tests.helpers import random_weights, write_checkpoint

U8, I32 = torch.uint8, torch.int32
M = "model.layers.0.mlp.up_proj"


def codes(*shape: int, dtype: torch.dtype = U8) -> torch.Tensor:
    return torch.zeros(*shape, dtype=dtype)


STORED = {
    "bitsandbytes": {f"{M}.weight": codes(768, 1), f"{M}.weight.absmax": codes(24), f"{M}.weight.quant_map": torch.ones(16)},
    "bitsandbytes (8 bits)": {f"{M}.weight": codes(48, 32, dtype=torch.int8), f"{M}.SCB": torch.ones(48)},
    "GPTQ": {f"{M}.qweight": codes(4, 48, dtype=I32), f"{M}.qzeros": codes(1, 6, dtype=I32), f"{M}.scales": torch.ones(1, 48),
             f"{M}.g_idx": codes(32, dtype=I32)},
    "AWQ": {f"{M}.qweight": codes(32, 6, dtype=I32), f"{M}.qzeros": codes(1, 6, dtype=I32), f"{M}.scales": torch.ones(1, 48)},
    "MXFP4": {"model.layers.0.mlp.experts.gate_up_proj_blocks": codes(2, 48, 1, 16),
              "model.layers.0.mlp.experts.gate_up_proj_scales": codes(2, 48, 1)},
    "MLX": {f"{M}.weight": codes(48, 4, dtype=torch.uint32), f"{M}.scales": torch.ones(48, 1)},
    "HQQ": {f"{M}.W_q": codes(48, 16)},
    "AQLM": {f"{M}.codes": codes(48, 4, 1, dtype=torch.int16), f"{M}.codebooks": torch.ones(1, 16, 1, 8)},
    "VPTQ": {f"{M}.indices": codes(1, 48, 4, dtype=I32), f"{M}.centroids.weight": torch.ones(1, 128)},
    "EETQ": {f"{M}.weight": codes(32, 48, dtype=torch.int8), f"{M}.weight_scales": torch.ones(48)},
    "Quanto": {f"{M}.weight._data": codes(48, 32, dtype=torch.int8), f"{M}.weight._scale": torch.ones(48, 1)},
    "BitNet": {f"{M}.weight": codes(12, 32), f"{M}.weight_scale": torch.ones(1)},
    "NVFP4": {f"{M}.weight": codes(48, 16), f"{M}.weight_scale": codes(48, 2).view(torch.float8_e4m3fn),
              f"{M}.weight_scale_2": torch.ones(1)},
    "nvfp4-pack-quantized": {f"{M}.weight_packed": codes(48, 16), f"{M}.weight_scale": codes(48, 2).view(torch.float8_e4m3fn),
                             f"{M}.weight_global_scale": torch.ones(1)},
    "mxfp4-pack-quantized": {f"{M}.weight_packed": codes(48, 16), f"{M}.weight_scale": codes(48, 1)},
    "sparse-bitmask": {f"{M}.compressed": torch.ones(9), f"{M}.bitmask": codes(48, 4), f"{M}.row_offsets": codes(48, 1)},
}  # fmt: skip


def quantised(directory: Path, tensors: dict[str, torch.Tensor], **config: object) -> Path:
    weights = random_weights(1)
    write_checkpoint(directory, weights, **config)
    plain = {n: w for n, w in weights.items() if n != f"{M}.weight"}
    save_file({**plain, **tensors}, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def recipe(*models: str | Path, **also: object) -> MergeRecipe:
    entries = [{"model": str(m), "parameters": {"weight": 0.5}} for m in models]
    return MergeRecipe.model_validate({"merge_method": "linear", "models": entries, "dtype": "bfloat16", **also})


@pytest.mark.parametrize("name", STORED)
def test_codes_are_refused_by_the_name_of_their_scheme_though_the_configuration_is_silent(tmp_path: Path, name: str) -> None:
    model = quantised(tmp_path / "m", STORED[name])
    with pytest.raises(CheckpointError) as caught:
        plan_merge(recipe(model, write_checkpoint(tmp_path / "n", random_weights(2))))
    assert name.partition(" (")[0] in caught.value.message
    assert caught.value.hint


METHODS = sorted(set(SCHEMES) - {"fp8", "mxfp8", "fbgemm_fp8", "compressed-tensors"})


@pytest.mark.parametrize("method", [*METHODS, "a-scheme-of-tomorrow"])
def test_a_scheme_that_the_configuration_names_is_refused_by_name(tmp_path: Path, method: str) -> None:
    codes_of_it = {f"{M}.weight": codes(48, 16), f"{M}.some_scale": torch.ones(48)}
    model = quantised(tmp_path / "m", codes_of_it, quantization_config={"quant_method": method})
    with pytest.raises(CheckpointError) as caught:
        plan_merge(recipe(model, model))
    assert SCHEMES.get(method, (method,))[0] in caught.value.message
    assert caught.value.hint


def test_every_method_that_transformers_knows_has_a_name_here() -> None:
    from transformers.utils.quantization_config import QuantizationMethod

    assert {method.value for method in QuantizationMethod} <= SCHEMES.keys()


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"format": "marlin-24"}, "marlin-24"),
        ({"format": "dense", "sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse-24-bitmask"),
        ({"format": "pack-quantized", "transform_config": {"config_groups": {"u": {}}}}, "transform_config"),
        ({"format": "mixed-precision", "config_groups": {"a": {"format": "nvfp4-pack-quantized"}}}, "nvfp4-pack-quantized"),
    ],
)
def test_formats_of_compressed_tensors_beyond_a_code_and_a_scale_are_refused(tmp_path: Path, settings: dict, what: str) -> None:
    tensors = {f"{M}.weight": codes(48, 32, dtype=torch.int8), f"{M}.weight_scale": torch.ones(48, 1)}
    model = quantised(tmp_path / "m", tensors, quantization_config={"quant_method": "compressed-tensors", **settings})
    with pytest.raises(CheckpointError, match=what):
        plan_merge(recipe(model, model))


@pytest.mark.parametrize("name", ["bitsandbytes", "GPTQ", "MXFP4"])
def test_an_adapter_on_a_quantised_model_is_refused_by_the_models_scheme(tmp_path: Path, name: str) -> None:
    model, adapter = quantised(tmp_path / "m", STORED[name]), tmp_path / "adapter"
    adapter.mkdir()
    factors = {"lora_A": torch.ones(4, 32), "lora_B": torch.ones(48, 4)}
    factors = {f"base_model.model.{M}.{name}.weight": factor for name, factor in factors.items()}
    save_file(factors, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    with pytest.raises(CheckpointError, match=name):
        plan_merge(recipe(f"{model}+{adapter}", model))


def test_codes_are_not_handed_to_mergekit_either(tmp_path: Path) -> None:
    model = quantised(tmp_path / "m", STORED["GPTQ"])
    with pytest.raises(CheckpointError, match="GPTQ"):
        plan_merge(recipe(model, model), engine="mergekit")
    fp8 = {f"{M}.weight": codes(48, 32).view(torch.float8_e4m3fn), f"{M}.weight_scale_inv": torch.ones(1, 1)}
    model = quantised(tmp_path / "f", fp8)
    with pytest.raises(CheckpointError, match="FP8"):
        plan_merge(recipe(model, model), engine="mergekit")


def test_weights_that_are_numbers_are_merged_though_the_configuration_still_says_bitsandbytes(tmp_path: Path) -> None:
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    models = [write_checkpoint(tmp_path / n, random_weights(i), quantization_config=settings) for i, n in enumerate("ab")]
    merge_to_directory(plan_merge(recipe(*models, dtype="float32")), tmp_path / "out")
    merged, expected = load_file(tmp_path / "out" / "model.safetensors"), random_weights(0)
    assert torch.allclose(
        merged["model.norm.weight"], (expected["model.norm.weight"] + random_weights(1)["model.norm.weight"]) / 2
    )
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
