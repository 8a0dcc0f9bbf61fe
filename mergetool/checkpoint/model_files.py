"""Everything beside the weights: configuration, generation settings, tokenizer, chat template, model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from mergetool.checkpoint.quantised import without_quantisation

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja",
    "chat_template.json", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip


BESIDE = ("config.json", "generation_config.json", "adapter_config.json", *TOKENIZER_FILES)


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
    without_quantisation(config)
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
