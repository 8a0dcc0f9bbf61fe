"""Everything beside the weights: which files of a checkpoint a result gets, which it does not, and how they are written.

The rule, in one place: the configuration is written anew, tokenizer files come from the model whose tokenizer the result
has, and of the base everything is carried that is not weights, not the state of a training, and not written by us. What
is carried is copied and never run, what is left behind is said, and no link leads out of a checkpoint's directory.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergetool import reading
from mergetool.checkpoint.place import Place
from mergetool.checkpoint.quantised import without_quantisation
from mergetool.checkpoint.recognise import LFS_HINT, is_pointer
from mergetool.errors import CheckpointError

CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "source.spm", "target.spm",
    "tekken.json", "tiktoken.model", "qwen.tiktoken", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
_TEMPLATES = "additional_chat_templates/"

# Written anew, or about the files that the weights were in.
_OURS = re.compile(
    r"(config|generation_config|mergetool|adapter_config|quantize_config|quant_config|hf_quant_config)\.json|"
    r"README\.md|mergekit_config\.ya?ml|\.gitattributes|\.gitignore|.*\.index\.json"
)
# Working files of programs; none of them belongs to a model.
_HIDDEN = re.compile(
    r"(\.git|\.cache|\.huggingface|\.locks|__pycache__|\.ipynb_checkpoints)(/|$)|.*\.(pyc|lock|incomplete)$|\.DS_Store$"
)
_WEIGHTS = re.compile(
    r".*\.(safetensors|bin|pt|pth|ckpt|msgpack|h5|gguf|ggml|onnx|onnx_data|ot|tflite|mlmodel|npz|nemo|distcp|mar|engine)|"
    r"(.*/)?(original|onnx|openvino|coreml|mlx|gguf)/.*|consolidated.*|.*\.mlpackage/.*"
)
_TRAINING = re.compile(
    r"(.*/)?(optimizer|scheduler|scaler|rng_state)[\w.-]*\.(pt|pth|bin)|trainer_state\.json|training_args\.bin|"
    r"trainer_log\.jsonl|(all|train|eval|predict)_results\.json|zero_to_fp32\.py|latest|"
    r"(global_step\d+|checkpoint-\d+|runs|wandb|pytorch_model_fsdp\w*|optimizer\w*)/.*"
)
_MODULES = "modules.json"
_LARGE = 200_000_000  # bytes; no file that a loader needs beside the weights is larger


@dataclass(frozen=True)
class Beside:
    """The files of a checkpoint that are neither its weights nor written anew.

    Attributes:
        carried: those that a result of it gets.
        left: those that it does not get, with the reason.
    """

    carried: tuple[str, ...]
    left: dict[str, str]


def beside(place: Place) -> Beside:
    """Divide a checkpoint's files by the rule of this module.

    Raises:
        CheckpointError: a link of a directory leads to nothing.
    """
    files = dict(_files(place))
    modules = _modules(place, files)
    carried, left = [], {}
    for name, size in sorted(files.items()):
        needed = any(name.startswith(folder) for folder in modules)
        if _OURS.fullmatch(name) or _HIDDEN.match(name) or _is_tokenizer(name) or "/." in f"/{name}":
            continue
        if size is None:
            left[name] = "a link out of the directory"
        elif _TRAINING.fullmatch(name):
            left[name] = "training state"
        elif _WEIGHTS.fullmatch(name) and not needed:
            left[name] = "weights"
        elif size > _LARGE and not needed:
            left[name] = "large"
        else:
            carried.append(name)
    return Beside(tuple(carried), {name: why for name, why in left.items() if not _merged(name, place)})


def left_behind(found: Beside) -> list[str]:
    """What `Beside.left` says, a line for each reason."""
    lines = []
    for why in dict.fromkeys(found.left.values()):
        names = [name for name, reason in found.left.items() if reason == why]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        lines.append(f"left behind ({why}): {', '.join(names[:5])}{more}")
    return lines


def tokenizer_files(place: Place) -> list[str]:
    """The tokenizer files of a checkpoint, chat templates among them."""
    return sorted(name for name, _ in _files(place) if _is_tokenizer(name))


def needed_beside(place: Place) -> list[str]:
    """Every file beside the weights that a result of this checkpoint may get, written anew or copied."""
    written = [name for name, _ in _files(place) if name in (CONFIG, GENERATION)]
    return [*written, *tokenizer_files(place), *beside(place).carried]


def remote_code(place: Place) -> list[str]:
    """The Python files, or the repositories, whose code a loader of this checkpoint runs (``auto_map``)."""
    found: dict[str, None] = {}
    names = [name for name, _ in _files(place)]
    for name in names:
        if name not in (CONFIG, "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
            continue
        mapped = _checked_json(place, name).get("auto_map") or {}
        for value in mapped.values() if isinstance(mapped, dict) else ():
            for reference in value if isinstance(value, list) else [value]:
                if isinstance(reference, str):
                    repo, _, module = reference.rpartition("--")
                    found[repo or f"{module.rsplit('.', 1)[0]}.py"] = None
    return list(found)


def check_beside(place: Place, tokenizer: Place) -> None:
    """Refuse a base and a tokenizer whose files are damaged, as far as they are on this disk.

    Raises:
        CheckpointError: a JSON file is truncated, or a link leads to nothing or out of the directory.
    """
    for where, names in ((place, (*beside(place).carried, CONFIG, GENERATION)), (tokenizer, tokenizer_files(tokenizer))):
        for name in names:
            if (where.directory / name).exists() or (where.directory / name).is_symlink():
                _source(where.directory, name)


def write_config(source: Path, out: Path, dtype: str, changed: Mapping[str, Any] | None = None) -> None:
    """Copy config.json and generation_config.json; `dtype` says what the written tensors are.

    Args:
        source: the model directory that they come from.
        out: the directory under construction.
        dtype: torch's name of the tensors' dtype, e.g. ``"bfloat16"``.
        changed: takes the place of what config.json holds.
    """
    config = json.loads(_source(source, CONFIG).read_bytes() if changed is None else json.dumps(dict(changed)))
    for holder in (config, config.get("text_config")):
        if isinstance(holder, dict):
            keys = [k for k in ("dtype", "torch_dtype") if k in holder] or (["dtype"] if holder is config else [])
            holder.update(dict.fromkeys(keys, dtype))
    config.pop("_name_or_path", None)
    without_quantisation(config)
    (out / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if (source / GENERATION).exists():
        _copy(source, GENERATION, out)


def write_tokenizer(source: Path, out: Path, chat_template: str | None = None) -> None:
    """Copy a model's tokenizer files; a chat template given as Jinja text replaces its own."""
    for name, _ in _walk(source):
        if _is_tokenizer(name):
            _copy(source, name, out)
    if chat_template:
        (out / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
        path = out / "tokenizer_config.json"
        if path.exists():
            settings = reading.parsed_file(path)
            if settings.pop("chat_template", None) is not None:
                path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_beside(place: Place, out: Path) -> Beside:
    """Copy what is carried of a checkpoint's files.

    Args:
        place: the checkpoint; what of it lies on the Hub has been fetched.
        out: the directory under construction.

    Returns:
        What was carried, and what was left behind.
    """
    found = beside(place)
    for name in found.carried:
        if not (out / name).exists():  # a name that the result has already is its own
            _copy(place.directory, name, out)
    return found


def _is_tokenizer(name: str) -> bool:
    return name in TOKENIZER_FILES or name.startswith(_TEMPLATES) or ("/" not in name and name.endswith(".tiktoken"))


def _merged(name: str, place: Place) -> bool:
    """True for the files whose weights are merged, which are not left behind."""
    suffixes = (".safetensors",) if any(f.endswith(".safetensors") for f in place.files()) else (".bin",)
    return "/" not in name and name.endswith(suffixes) and re.match(r"(model|pytorch_model)\b", name) is not None


def _modules(place: Place, files: Iterable[str]) -> list[str]:
    """The folders of a sentence-transformers model's modules, whose small weights are theirs."""
    if _MODULES not in files:
        return []
    try:
        listed = reading.parsed_file(place.path(_MODULES))
        return [f"{one['path'].strip('/')}/" for one in listed if one.get("path")]
    except (ValueError, TypeError, AttributeError, KeyError, OSError, RecursionError):
        return []  # whatever else is called so; a truncated file is an error where it is carried


def _files(place: Place) -> Iterator[tuple[str, int | None]]:
    """(name with its folders, bytes) of every file; None for a link that leads out of the directory."""
    known = getattr(place.pinned, "files", None)
    if known is None:
        yield from _walk(place.directory)
        return
    for name, file in known.items():
        if not os.path.isabs(name) and ".." not in Path(name).parts:
            yield name, file.size


def _walk(directory: Path) -> Iterator[tuple[str, int | None]]:
    for folder, folders, files in os.walk(directory):
        here = Path(folder)
        for name in [name for name in folders if (here / name).is_symlink()]:
            folders.remove(name)
            files.append(name)
        folders[:] = [name for name in folders if not _HIDDEN.match(name)]
        for name in files:
            path = here / name
            relative = path.relative_to(directory).as_posix()
            if not path.exists():
                raise CheckpointError(f"{path}: is a link to nothing", "fetch the file again, or remove the link")
            outside = path.is_symlink() and not is_inside(path, directory)
            if path.is_dir() and not outside:
                outside = True  # a folder under a second name
            yield relative, None if outside else path.stat().st_size


def is_inside(path: Path, directory: Path) -> bool:
    """True where a link ends in its checkpoint's directory, or among the blobs of the Hub's cache that it is a view of."""
    target, root = path.resolve(), directory.resolve()
    if target.is_relative_to(root):
        return True
    cached = root.parent.name == "snapshots"
    return cached and target.is_relative_to(root.parent.parent / "blobs")


def _source(directory: Path, name: str) -> Path:
    """A file that may be copied.

    Raises:
        CheckpointError: it is a link to nothing or out of the directory, or it is JSON and damaged.
    """
    path = directory / name
    if not path.exists():
        raise CheckpointError(f"{path}: is a link to nothing", "fetch the file again, or remove the link")
    if path.is_symlink() and not is_inside(path, directory):
        raise CheckpointError(f"{path}: is a link out of the checkpoint's directory", "put the file itself there")
    if name.endswith(".json") or _is_tokenizer(name):
        with reading.opened(path) as file:
            if is_pointer(file.read(64)):
                raise CheckpointError(f"{path}: is a Git-LFS pointer and not the file itself", LFS_HINT)
    if name.endswith(".json"):
        try:
            reading.parsed_file(path)
        except ValueError as error:
            raise CheckpointError(f"{path}: is not valid JSON ({error})", "fetch the file again, or remove it") from None
    return path


def _checked_json(place: Place, name: str) -> dict[str, Any]:
    value = json.loads(_source(place.path(name).parent, name).read_bytes())
    return value if isinstance(value, dict) else {}


def _copy(source: Path, name: str, out: Path) -> None:
    path = _source(source, name)
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, out / name)
