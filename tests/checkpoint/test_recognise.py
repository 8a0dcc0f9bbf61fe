"""What is no checkpoint is called by what it is, with the command or the place that leads to one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.open import layout_of
from mergetool.checkpoint.place import Directory
from mergetool.errors import CheckpointError
from mergetool.merge import MergeRecipe, merge_tensors, plan_merge
from tests.helpers import random_weights, write_checkpoint

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234567\n"

HELD = {
    "DeepSpeed": ["global_step10/mp_rank_00_model_states.pt", "zero_to_fp32.py", "latest"],
    "FSDP": ["pytorch_model_fsdp_0/__0_0.distcp", "pytorch_model_fsdp_0/.metadata"],
    "gathered": ["pytorch_model_fsdp.bin"],
    "verl": ["actor/huggingface/config.json", "actor/model_world_size_8_rank_0.pt"],
    "Megatron": ["iter_0000100/mp_rank_00_001/model_optim_rng.pt", "latest_checkpointed_iteration.txt"],
    "OpenVINO": ["openvino_model.bin", "openvino_model.xml"],
    "checkpoint of TensorFlow": ["model.ckpt.index", "model.ckpt.data-00000-of-00001"],
    "diffusers": ["model_index.json", "unet/diffusion_pytorch_model.safetensors"],
    r"variant \(model\.fp16": ["model.fp16.safetensors"],
    "DVC": ["model.safetensors.dvc"],
    r"not finished \(model\.safetensors\.aria2": ["model.safetensors.aria2"],
    "state of a training without": ["optimizer.pt", "training_args.bin", "trainer_state.json"],
    "DCP": [".metadata", "__0_0.distcp"],
    "GGUF": ["model-Q4_K_M.gguf"],
    "Meta": ["consolidated.00.pth", "params.json"],
    "Mistral": ["consolidated.safetensors", "params.json"],
    "MLX": ["weights.npz"],
    "TensorFlow": ["tf_model.h5"],
    "Flax": ["flax_model.msgpack"],
    "ONNX": ["model.onnx"],
    r"model_final\.pth": ["model_final.pth"],
    "adapter": ["adapter_model.safetensors"],
    "one": ["one/config.json", "one/model.safetensors"],
}


def refused(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        read_layout(path)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def put(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(b"{}")
    return directory


@pytest.mark.parametrize("config", [False, True], ids=["no config", "config"])
@pytest.mark.parametrize("what", HELD)
def test_what_a_directory_holds_is_said(tmp_path: Path, what: str, config: bool) -> None:
    put(tmp_path / "m", *HELD[what], *(["config.json"] if config else []))
    assert re.search(what, refused(tmp_path / "m").message)


def test_of_a_trainers_output_directory_the_newest_checkpoint_is_named(tmp_path: Path) -> None:
    out = put(
        tmp_path / "out",
        "checkpoint-90/model.safetensors",
        "checkpoint-100/model.safetensors",
        "checkpoint-200/trainer_state.json",
    )
    error = refused(out)
    assert "Trainer" in error.message
    assert error.hint.endswith("checkpoint-100")


def test_of_a_trainers_directory_of_adapters_the_newest_is_named_as_one(tmp_path: Path) -> None:
    out = put(tmp_path / "out", "checkpoint-90/adapter_config.json", "checkpoint-90/adapter_model.safetensors")
    assert refused(out).hint.endswith(f"MODEL+{out}/checkpoint-90)")
    base = write_checkpoint(tmp_path / "m", random_weights(0))
    with pytest.raises(CheckpointError, match="Trainer's output directory, not an adapter"):
        layout_of(Directory(base), Directory(out))


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_a_pointer_among_the_files_beside_the_weights_is_called_one(tmp_path: Path, file: str) -> None:
    places = [write_checkpoint(tmp_path / name, random_weights(0)) for name in "mn"]
    (places[0] / file).write_text(POINTER)
    models = [{"model": str(place), "parameters": {"weight": 0.5}} for place in places]
    with pytest.raises(CheckpointError, match="Git-LFS pointer"):
        plan_merge(MergeRecipe.model_validate({"merge_method": "linear", "models": models}))


@pytest.mark.parametrize("file", ["model.gguf", "model.pth", "model.safetensors"])
def test_a_file_in_place_of_a_directory_is_said_to_be_one(tmp_path: Path, file: str) -> None:
    put(tmp_path, file)
    assert "is a file" in refused(tmp_path / file).message


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"])
def test_a_git_lfs_pointer_is_called_one(tmp_path: Path, file: str) -> None:
    place = write_checkpoint(tmp_path / "m", random_weights(0))
    if file != "config.json":
        (place / "model.safetensors").unlink()
    (place / file).write_text(POINTER)
    error = refused(place)
    assert "Git-LFS pointer" in error.message
    assert "git lfs pull" in error.hint


def test_weights_beside_an_index_of_an_earlier_save_are_read_as_transformers_reads_them(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    old, new = random_weights(0), random_weights(1)
    place = write_checkpoint(tmp_path / "m", old, shards=3)
    save_file(new, place / "model.safetensors", metadata={"format": "pt"})
    assert list(read_layout(place).headers) == ["model.safetensors"]
    name = "model.norm.weight"
    assert torch.equal(AutoModelForCausalLM.from_pretrained(place).state_dict()[name], new[name])


def test_a_bin_file_of_parameters_merges(tmp_path: Path) -> None:
    place = write_checkpoint(tmp_path / "m", random_weights(0))
    weights = load_file(place / "model.safetensors")
    torch.save({name: torch.nn.Parameter(weight) for name, weight in weights.items()}, place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()
    other = write_checkpoint(tmp_path / "n", random_weights(1))
    models = [{"model": str(m), "parameters": {"weight": 0.5}} for m in (place, other)]
    merged = dict(merge_tensors(plan_merge(MergeRecipe.model_validate({"merge_method": "linear", "models": models}))))
    for name, weight in random_weights(1).items():
        torch.testing.assert_close(merged[name], (weights[name] + weight) / 2)


def test_weights_without_entries_are_an_error(tmp_path: Path) -> None:
    """What DeepSpeed's third stage leaves where nobody gathered its weights."""
    weights = {name: torch.empty(0) if "proj" in name or "norm" in name else w for name, w in random_weights(0).items()}
    assert "no entries" in refused(write_checkpoint(tmp_path / "m", weights)).message
