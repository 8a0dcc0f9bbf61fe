"""What a directory holds that is not a checkpoint as save_pretrained writes it, and how one gets a checkpoint from it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_POINTER = b"version https://git-lfs.github.com/spec/"
_PREFIX = 8  # bytes, of which the first of a safetensors file are a length that is never as large as these
LFS_HINT = "it was cloned without the files themselves: run `git lfs pull` there, or fetch it with `hf download`"
_SAVE = "load it with the program that wrote it, and save the model with save_pretrained"

# (a file's name with its folders, what it is a sign of, the next step; {there} is the directory), the more telling first
_SIGNS: tuple[tuple[str, str, str], ...] = (
    (r"(.*/)?(mp_rank_\d+|zero_pp_rank_\d+_mp_rank_\d+|bf16_zero_pp_rank_\d+_mp_rank_\d+)_(model|optim)_states\.pt|zero_to_fp32\.py",
     "DeepSpeed's shards of a training", "run `python zero_to_fp32.py . . --safe_serialization` in it"),
    (r"(.*/)?model_world_size_\d+_rank_\d+\.pt",
     "verl's shards of a training",
     "run `python -m verl.model_merger merge --backend fsdp --local_dir {there} --target_dir OUT`"),
    (r"(.*/)?mp_rank_[\d_]+/model_optim_rng\.pt|latest_checkpointed_iteration\.txt",
     "a Megatron checkpoint", "convert it to Hugging Face with the program that trained it, or with Megatron Bridge"),
    (r"pytorch_model_fsdp_\d+/.*",
     "FSDP's shards of a training", "run `accelerate merge-weights {there}/pytorch_model_fsdp_0 {there}`"),
    (r"pytorch_model_fsdp\.bin", "FSDP's gathered weights", "name the file pytorch_model.bin"),
    (r"(.*/)?__\d+_\d+\.distcp|(.*/)?\.metadata",
     "a distributed checkpoint (DCP)",
     "run `python -m torch.distributed.checkpoint.format_utils dcp_to_torch {there} FILE.pt`, and save_pretrained its model"),
    (r"(.*/)?[^/]*\.gguf",
     "GGUF files, whose weights are quantised for llama.cpp",
     "take the model that they were made from, or load one with transformers (gguf_file=...) and save_pretrained"),
    (r"(original/)?consolidated\.\d+\.pth",
     "Meta's own files (consolidated.*.pth)", "take the repository with -hf in its name, or convert them with transformers"),
    (r"consolidated(-\d+-of-\d+)?\.safetensors",
     "Mistral's own files (consolidated.safetensors)", "take what transformers reads: model*.safetensors with config.json"),
    (r"weights(\.\d+)?\.npz", "MLX's weights", "take the model that they were made from"),
    (r"[^/]*\.nemo|model_weights/.*", "a NeMo checkpoint", "convert it with NeMo's own export to Hugging Face"),
    (r"tf_model.*\.h5", "TensorFlow's weights", "load it with transformers 4 (from_tf=True), and save_pretrained"),
    (r"flax_model.*\.msgpack", "Flax's weights", "load it with transformers 4 (from_flax=True), and save_pretrained"),
    (r"[^/]*\.onnx|onnx/.*\.onnx", "an ONNX export", "take the model that it was exported from"),
    (r"openvino_model\.(bin|xml)", "an OpenVINO export", "take the model that it was exported from"),
    (r"[^/]*\.ckpt(-\d+)?\.(index|meta|data-.*)",
     "a checkpoint of TensorFlow's", "load it with transformers 4 (from_tf=True), and save_pretrained"),
    (r"model_index\.json", "a pipeline of diffusers", "take a model of transformers: the pipeline's other parts are none"),
    (r"(model|pytorch_model)\.(?!safetensors|bin)[\w-]+\.(safetensors|bin)",
     "weights of a variant ({file})", "load it with transformers (variant=...) and save_pretrained"),
    (r"[^/]*\.dvc", "DVC's notes of files that were not fetched", "run `dvc pull` in it"),
    (r"(.*/)?[^/]*\.(aria2|incomplete|part|crdownload)",
     "a download that is not finished ({file})", "fetch it again: `hf download`"),
    (r"adapter_model\.(safetensors|bin)", "an adapter", "write MODEL+ADAPTER, and keep its adapter_config.json beside it"),
    (r"(optimizer|scheduler)\.pt|trainer_state\.json|training_args\.bin",
     "the state of a training without its weights", "take the directory that the model was saved in"),
    (r"[^/]*\.(pth|pt|ckpt)", "a file of torch's ({file})", _SAVE),
)  # fmt: skip


def what_lies_there(directory: str | Path, names: Iterable[str]) -> tuple[str, str] | None:
    """What a directory without a checkpoint holds, and the next step; None where nothing in it is known.

    Args:
        directory: what messages call it.
        names: of the files in it, with their folders.
    """
    names = sorted(names)
    numbered = {int(m[1]): m[0].partition("/")[0] for name in names if (m := re.match(r"checkpoint-(\d+)/.*", name))}
    whole = [n for n, folder in numbered.items() if _has_weights(folder, names)]
    if whole:
        newest = numbered[max(whole)]
        adapter = not any(re.match(rf"{re.escape(newest)}/(model|pytorch_model)[\w.-]*\.(safetensors|bin)$", n) for n in names)
        step = f"take its newest checkpoint: {directory}/{newest}"
        return "is a Trainer's output directory", f"{step}, an adapter (MODEL+{directory}/{newest})" if adapter else step
    for pattern, what, step in _SIGNS:
        for name in names:
            if re.fullmatch(pattern, name):
                return f"holds {what.format(file=name)}", step.format(there=directory)
    inside = sorted({name.partition("/")[0] for name in names if "/" in name})
    models = [folder for folder in inside if f"{folder}/config.json" in names and _has_weights(folder, names)]
    if models:
        return f"holds models in directories of their own ({', '.join(models[:3])})", f"name one: {directory}/{models[0]}"
    return None


def file_instead(path: Path) -> tuple[str, str]:
    """What a single file is that was given in place of a directory, and the next step."""
    found = what_lies_there(path.parent, [path.name])
    if found is not None:
        return f"is a file: {found[0].removeprefix('holds ')}", found[1]
    return "is a file, not a model directory", "name the directory that holds config.json"


def is_pointer(first: bytes) -> bool:
    """True where a file's first bytes, eight at the least, are those of a Git-LFS pointer: a clone without the file."""
    return len(first) >= _PREFIX and first[: len(_POINTER)] == _POINTER[: len(first)]


def _has_weights(folder: str, names: list[str]) -> bool:
    return any(
        re.match(rf"{re.escape(folder)}/(model|pytorch_model|adapter_model)[\w.-]*\.(safetensors|bin)$", n) for n in names
    )
