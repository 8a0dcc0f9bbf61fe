"""Everything beside the weights: configuration, generation settings, tokenizer, chat template, model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from mergetool.checkpoint.place import Place
from mergetool.errors import CheckpointError

_VOCABULARY = "tokenizer.json"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja",
    "chat_template.json", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip


BESIDE = ("config.json", "generation_config.json", "adapter_config.json", *TOKENIZER_FILES)


def same_vocabulary(a: Place, b: Place) -> bool:
    """True where two checkpoints' tokenizers map the same words to the same ids (or one has no tokenizer.json)."""
    known = [(p.pinned.files or {}).get(_VOCABULARY) if p.pinned else None for p in (a, b)]
    if a.directory == b.directory or (known[0] and known[0] == known[1]):
        return True  # the Hub tells the hash of either: nothing need be fetched
    if not all(_VOCABULARY in p.files() for p in (a, b)):
        return True
    first, second = a.path(_VOCABULARY), b.path(_VOCABULARY)
    if first.stat().st_size == second.stat().st_size and first.read_bytes() == second.read_bytes():
        return True
    return _vocabulary(first) == _vocabulary(second)


def _vocabulary(path: Path) -> Any:
    try:
        content = json.loads(path.read_bytes())
        vocabulary = content["model"].get("vocab")
        added = {t["content"]: t["id"] for t in content.get("added_tokens") or []}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not a tokenizer file ({error})", "fetch the file again") from None
    if isinstance(vocabulary, dict):
        return {**vocabulary, **added}
    return vocabulary, added


def write_config(source: Path, out: Path, dtype: str) -> None:
    """Copy config.json and generation_config.json; `dtype` says what the written tensors are.

    Args:
        source: the model directory that they come from.
        out: the directory under construction.
        dtype: torch's name of the tensors' dtype, e.g. ``"bfloat16"``.
    """
    config = json.loads((source / "config.json").read_bytes())
    for holder in (config, config.get("text_config")):
        if isinstance(holder, dict):
            keys = [k for k in ("dtype", "torch_dtype") if k in holder] or (["dtype"] if holder is config else [])
            holder.update(dict.fromkeys(keys, dtype))
    config.pop("_name_or_path", None)
    (out / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    if (source / "generation_config.json").exists():
        shutil.copyfile(source / "generation_config.json", out / "generation_config.json")


def write_tokenizer(source: Path, out: Path, chat_template: str | None = None) -> None:
    """Copy a model's tokenizer files; a chat template given as Jinja text replaces its own."""
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, out / name)
    if chat_template:
        (out / "chat_template.jinja").write_text(chat_template)
        path = out / "tokenizer_config.json"
        if path.exists():
            settings = json.loads(path.read_bytes())
            if settings.pop("chat_template", None) is not None:
                path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
