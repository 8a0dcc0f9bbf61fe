"""A quantised checkpoint is read as the numbers that its codes stand for, exactly as the libraries that wrote it read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergetool.checkpoint.open import layout_of, open_reader
from mergetool.checkpoint.place import Directory
from mergetool.errors import CheckpointError
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
from tests.helpers import random_weights, write_checkpoint

FP8, FP4 = torch.float8_e4m3fn, (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def random_codes(*shape: int, seed: int = 0) -> torch.Tensor:
    """FP8 codes of every size, without NaN."""
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 40).clamp(-440, 440).to(FP8)


def scales(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    found = torch.rand(*shape, generator=torch.Generator().manual_seed(7)) * 0.1 + 0.01
    return found.log2().round().exp2().to(dtype) if dtype == torch.float8_e8m0fnu else found.to(dtype)


def put(directory: Path, tensors: dict[str, torch.Tensor], **config: object) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    save_file({n: t.contiguous() for n, t in tensors.items()}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return directory


def read(directory: Path) -> dict[str, torch.Tensor]:
    """Every tensor, read in blocks that begin and end anywhere."""
    layout = layout_of(Directory(directory))
    found = {}
    with open_reader(layout) as reader:
        for name, info in layout.tensors.items():
            pieces = [reader.block(name, a, min(a + 77, info.numel)).clone() for a in range(0, info.numel, 77)]
            found[name] = torch.cat(pieces).view(info.shape)
            assert torch.equal(found[name], reader.tensor(name))
    return found


def fp8_config(**also: object) -> dict:
    return {"quantization_config": {"quant_method": "fp8", "weight_block_size": [16, 16], **also}}


@pytest.mark.parametrize(
    ("shape", "grid", "dtype", "beside"),
    [
        ((32, 48), (2, 3), torch.float32, "m.weight_scale_inv"),
        ((32, 48), (2, 3), torch.bfloat16, "m.weight_scale_inv"),
        ((32, 48), (2, 3), torch.float8_e8m0fnu, "m.scale"),
        ((32, 48), (1, 1), torch.float32, "m.weight_scale_inv"),
        ((32, 48), (32, 1), torch.float32, "m.qscale_weight"),
        ((32, 64), (32, 2), torch.uint8, "m.weight_scale_inv"),
        ((3, 32, 48), (3, 2, 3), torch.float32, "m.weight_scale_inv"),
    ],
    ids=["block", "block-bf16", "block-ue8m0", "tensor", "channel", "mxfp8-bytes", "experts"],
)
def test_fp8_is_read_as_transformers_reads_it(
    tmp_path: Path, shape: tuple, grid: tuple, dtype: torch.dtype, beside: str
) -> None:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    codes = random_codes(*shape)
    scale = torch.randint(110, 130, grid).to(torch.uint8) if dtype == torch.uint8 else scales(*grid, dtype=dtype)
    put(tmp_path, {"m.weight": codes, beside: scale, "n.weight": torch.ones(4)}, **fp8_config())
    found = read(tmp_path)
    assert found.keys() == {"m.weight", "n.weight"}
    assert torch.equal(found["m.weight"], Fp8Dequantize(None)._dequantize_one(codes, scale, torch.float32))


def test_blocks_that_do_not_divide_a_matrix_are_cut_off_at_its_edge(tmp_path: Path) -> None:
    codes, scale = random_codes(36, 40), scales(3, 3)
    put(tmp_path, {"m.weight": codes, "m.weight_scale_inv": scale}, **fp8_config())
    whole = scale.repeat_interleave(16, 0)[:36].repeat_interleave(16, 1)[:, :40]
    assert torch.equal(read(tmp_path)["m.weight"], codes.float() * whole)


def test_two_fp4_codes_in_a_byte_are_read_as_transformers_reads_them(tmp_path: Path) -> None:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    packed = torch.randint(-128, 128, (8, 32)).to(torch.int8)
    scale = scales(8, 2, dtype=torch.float8_e8m0fnu)
    put(
        tmp_path,
        {"e.weight": packed, "e.scale": scale, "m.weight": random_codes(16, 16), "m.scale": scales(1, 1)},
        **fp8_config(),
    )
    assert torch.equal(read(tmp_path)["e.weight"], Fp8Dequantize(None)._dequantize_one(packed, scale, torch.float32))


@pytest.mark.parametrize("config", [{}, fp8_config(), {"text_config": fp8_config()}], ids=["none", "top", "nested"])
def test_fp8_is_known_by_its_tensors_whatever_the_configuration_says(tmp_path: Path, config: dict) -> None:
    codes = random_codes(16, 16)
    put(tmp_path, {"m.weight": codes, "m.weight_scale_inv": scales(1, 1), "m.input_scale": torch.ones(1)}, **config)
    layout = layout_of(Directory(tmp_path))
    assert layout.dequantised is not None
    assert layout.dequantised.scheme.name == "FP8"
    assert list(layout.tensors) == ["m.weight"]


@pytest.mark.parametrize(
    ("tensors", "what"),
    [
        ({"m.weight": random_codes(8, 8), "n.weight": random_codes(8, 8), "n.weight_scale_inv": torch.ones(1)},
         "no tensor holds"),
        ({"m.weight": random_codes(16, 16), "m.weight_scale_inv": torch.ones(3, 5)}, "do not fit"),
        ({"m.weight": torch.ones(4, 4), "m.weight_scale_inv": torch.ones(1), "n.weight": random_codes(4, 4),
          "n.scale": torch.ones(1)}, "no code"),
    ],
)  # fmt: skip
def test_codes_and_scales_that_do_not_belong_together_are_an_error(tmp_path: Path, tensors: dict, what: str) -> None:
    put(tmp_path, tensors, **fp8_config())
    with pytest.raises(CheckpointError, match=what) as caught:
        layout_of(Directory(tmp_path))
    assert caught.value.hint


# --- compressed-tensors --------------------------------------------------------------------------------------------


def packed_as_words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes one behind the other, lowest bits first, in Python's integers."""
    words = []
    for row in (codes + (1 << (bits - 1))).tolist():
        number = sum(code << (i * bits) for i, code in enumerate(row))
        words.append([(number >> (32 * w)) & 0xFFFFFFFF for w in range(-(-len(row) * bits // 32))])
    return torch.tensor(words, dtype=torch.int64).to(torch.int32)


def compressed(kind: str, weights: dict, **also: object) -> dict:
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "symmetric": True, "type": "int", **weights}}
    return {
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "format": kind,
            "config_groups": {"group_0": group},
            **also,
        }
    }


@pytest.mark.parametrize("bits", [4, 8, 3])
@pytest.mark.parametrize("group", [32, None])
@pytest.mark.parametrize("symmetric", [True, False])
def test_packed_codes_are_codes_times_scales(tmp_path: Path, bits: int, group: int | None, symmetric: bool) -> None:
    rows, columns = 10, 64
    half = 1 << (bits - 1)
    codes, per_row = torch.randint(-half, half, (rows, columns)), columns // group if group else 1
    scale, zero = scales(rows, per_row, dtype=torch.bfloat16), torch.randint(-half, half, (rows, per_row))
    tensors = {
        "m.weight_packed": packed_as_words(codes, bits),
        "m.weight_scale": scale,
        "m.weight_shape": torch.tensor([rows, columns]),
    }
    if not symmetric:
        tensors["m.weight_zero_point"] = packed_as_words(zero.T, bits).T
    settings = {"num_bits": bits, "group_size": group, "symmetric": symmetric, "strategy": "group" if group else "channel"}
    put(tmp_path, tensors, **compressed("pack-quantized", settings))
    numbers = codes if symmetric else codes - zero.repeat_interleave(columns // per_row, 1)
    expected = numbers.float() * scale.float().repeat_interleave(columns // per_row, 1)
    found = read(tmp_path)
    assert list(found) == ["m.weight"]
    assert torch.equal(found["m.weight"], expected)


def test_a_stated_shape_that_contradicts_the_codes_is_an_error(tmp_path: Path) -> None:
    tensors = {
        "m.weight_packed": torch.zeros(4, 4, dtype=torch.int32),
        "m.weight_scale": torch.ones(4, 1),
        "m.weight_shape": torch.tensor([4, 30]),
    }
    put(tmp_path, tensors, **compressed("pack-quantized", {"num_bits": 4, "strategy": "channel"}))
    with pytest.raises(CheckpointError, match="weight_shape"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        ("float-quantized", {"type": "float", "strategy": "tensor"}),
        ("float-quantized", {"type": "float", "strategy": "channel"}),
        ("float-quantized", {"type": "float", "strategy": "block", "block_structure": [16, 16]}),
        ("naive-quantized", {"type": "float", "strategy": "group", "group_size": 16}),
        ("int-quantized", {"strategy": "channel"}),
        ("int-quantized", {"strategy": "channel", "symmetric": False}),
        ("naive-quantized", {"strategy": "tensor"}),
        ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 16}),
        ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 16, "symmetric": False}),
        ("pack-quantized", {"num_bits": 8, "strategy": "channel"}),
        ("mxfp8-quantized", {"type": "float", "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_what_compressed_tensors_writes_is_read_as_it_decompresses_it(tmp_path: Path, kind: str, weights: dict) -> None:
    """Its own decompression rounds to the scales' type; ours is the exact product, which rounds to the same."""
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    config = compressed(kind, weights)
    group = config["quantization_config"]["config_groups"]["group_0"]
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**group["weights"]))
    rows, columns = 40, 64
    grid = {"tensor": (1,), "channel": (rows, 1), "block": (3, 4), "group": (rows, columns // weights.get("group_size", 1))}
    scale = scales(*grid[weights["strategy"]], dtype=torch.bfloat16)
    if kind.startswith("mxfp8"):
        scale = scale.float().log2().round().exp2().bfloat16()
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    state = {"weight": weight.bfloat16(), "weight_scale": scale}
    if not weights.get("symmetric", True):
        half = 1 << (weights.get("num_bits", 8) - 1)
        state["weight_zero_point"] = torch.randint(-half, half, scale.shape).to(torch.int8)
    compressor = BaseCompressor.get_value_from_registry(kind)
    stored = compressor.compress(state, scheme)
    put(tmp_path, {f"m.{name}": tensor for name, tensor in stored.items()}, **config)
    found = read(tmp_path)
    assert list(found) == ["m.weight"]
    assert torch.equal(found["m.weight"].bfloat16(), compressor.decompress(stored, scheme)["weight"])


def test_each_group_of_a_mixed_configuration_speaks_for_its_own_modules(tmp_path: Path) -> None:
    four, eight = torch.randint(-8, 8, (4, 32)), torch.randint(-128, 128, (4, 32))
    groups = {
        "a": {"targets": ["re:.*experts.*"], "weights": {"num_bits": 4, "type": "int", "strategy": "channel"}},
        "b": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int", "strategy": "channel"}},
    }
    tensors = {
        "experts.0.weight_packed": packed_as_words(four, 4), "experts.0.weight_scale": torch.ones(4, 1),
        "o.weight_packed": packed_as_words(eight, 8), "o.weight_scale": torch.ones(4, 1),
    }  # fmt: skip
    put(
        tmp_path,
        tensors,
        quantization_config={"quant_method": "compressed-tensors", "format": "mixed-precision", "config_groups": groups},
    )
    found = read(tmp_path)
    assert torch.equal(found["experts.0.weight"], four.float())
    assert torch.equal(found["o.weight"], eight.float())


# --- through a merge -----------------------------------------------------------------------------------------------


def write_fp8(directory: Path, weights: dict[str, torch.Tensor], shards: int = 1) -> dict[str, torch.Tensor]:
    """A Llama whose matrices are FP8 -> the numbers that they stand for."""
    stored, meant = {}, {}
    for name, weight in weights.items():
        if name.endswith("proj.weight"):
            scale = weight.abs().amax().view(1, 1) / 448
            stored[name], stored[f"{name}_scale_inv"] = (weight / scale).to(FP8), scale
            meant[name] = stored[name].float() * scale
        else:
            stored[name] = meant[name] = weight
    write_checkpoint(directory, meant, shards=shards)
    if shards == 1:
        save_file(stored, directory / "model.safetensors", metadata={"format": "pt"})
    else:  # the scales in the last shard, away from their codes
        index = json.loads((directory / "model.safetensors.index.json").read_text())
        files = sorted(set(index["weight_map"].values()))
        index["weight_map"] |= {n: files[-1] for n in stored if n.endswith("_scale_inv")}
        for file in files:
            save_file({n: stored[n] for n, f in index["weight_map"].items() if f == file}, directory / file)
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **fp8_config()}))
    return meant


def half(a: Path | str, b: Path, **also: object) -> MergeRecipe:
    models = [{"model": str(m), "parameters": {"weight": 0.5}} for m in (a, b)]
    return MergeRecipe.model_validate({"merge_method": "linear", "models": models, **also})


@pytest.mark.parametrize("shards", [1, 3])
def test_a_merge_of_fp8_is_that_of_its_numbers_and_loads(tmp_path: Path, shards: int) -> None:
    from transformers import AutoModelForCausalLM

    first = write_fp8(tmp_path / "a", random_weights(1), shards)
    second = write_fp8(tmp_path / "b", random_weights(2))
    merge_to_directory(plan_merge(half(tmp_path / "a", tmp_path / "b", dtype="float32")), tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert merged.keys() == first.keys()
    for name, tensor in merged.items():
        assert torch.allclose(tensor, (first[name] + second[name]) / 2, atol=1e-7), name
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    _, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


def test_without_a_dtype_a_merge_of_fp8_says_what_to_add(tmp_path: Path) -> None:
    write_fp8(tmp_path / "a", random_weights(1))
    write_checkpoint(tmp_path / "b", random_weights(2))
    with pytest.raises(CheckpointError, match=r"FP8.*add `dtype: bfloat16`"):
        plan_merge(half(tmp_path / "b", tmp_path / "a"))


def test_an_adapter_lies_on_the_numbers_of_an_fp8_model(tmp_path: Path) -> None:
    meant = write_fp8(tmp_path / "a", random_weights(1))
    module = "model.layers.0.mlp.up_proj"
    left, right = torch.randn(48, 4), torch.randn(4, 32)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_file(
        {f"base_model.model.{module}.lora_A.weight": right, f"base_model.model.{module}.lora_B.weight": left},
        adapter / "adapter_model.safetensors",
    )
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["up_proj"]})
    )
    with open_reader(layout_of(Directory(tmp_path / "a"), Directory(adapter))) as reader:
        assert torch.allclose(reader.tensor(f"{module}.weight"), meant[f"{module}.weight"] + 2 * left @ right, atol=1e-5)
