"""What a run writes beside its weights: the SFT checkpoint's own configuration and tokenizer, with what the recipe changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mergetool import reading
from mergetool.checkpoint.content import sha256_of
from mergetool.checkpoint.model_files import CONFIG, GENERATION, tokenizer_files, write_beside, write_config, write_tokenizer
from mergetool.checkpoint.place import Directory
from mergetool.errors import RecipeError

TEMPLATE = "chat_template_path"
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "vocab_size")
_CLASSIFIER = ("architectures", "id2label", "label2id")
_ROUTER = ("output_router_logits", "router_aux_loss_coef")

ALTERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "eos_token": _TOKENS,
        "pad_token": _TOKENS,
        TEMPLATE: _TOKENS,
        "router_aux_loss_coef": _ROUTER,
        "use_cache": ("use_cache",),
    }
)
"""Fields of TRL's configs that alter more than weights, each with the keys of config.json that follow it."""


def altered(training: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of config.json that a recipe's `training` alters."""
    keys = (key for field, keys in ALTERS.items() if training.get(field) is not None for key in keys)
    return tuple(dict.fromkeys(keys))


def alters_tokenizer(training: Mapping[str, Any]) -> bool:
    """Whether a recipe's `training` alters the tokenizer, and with it the generation settings."""
    return any(training.get(field) is not None for field, keys in ALTERS.items() if keys is _TOKENS)


def write_settings(
    model: Any, tokenizer: Any, training: Mapping[str, Any], sft: Path, out: Path, dtype: str, scores: bool = False
) -> None:
    """Writes configuration, generation settings, tokenizer and the files that a loader needs.

    They are theta_s's own files: the trainer has meanwhile written its pad token and tags into the configuration that it
    holds, which nobody asked for. What the recipe did ask for is written as TRL's own save writes it.

    Args:
        model, tokenizer: as they were trained.
        training: the recipe's.
        sft: the directory of theta_s.
        out: the directory under construction, with what `save_pretrained` of the model has written.
        dtype: torch's name of the written tensors' type.
        scores: whether it is a reward model, whose head finds the end of a text by the pad token.
    """
    spoken = scores or alters_tokenizer(training)
    saved = json.loads((out / CONFIG).read_bytes())
    generation = (out / GENERATION).read_bytes() if spoken and (out / GENERATION).exists() else None
    (out / GENERATION).unlink(missing_ok=True)
    write_config(sft, out, dtype)
    _alter_config(model, (*altered(training), *(("pad_token_id",) if scores else ())), out)
    if scores:
        config = json.loads((out / CONFIG).read_bytes())
        config |= {key: saved[key] for key in _CLASSIFIER if key in saved}
        (out / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    if spoken:
        if generation is not None:
            (out / GENERATION).write_bytes(generation)
        tokenizer.save_pretrained(out)
    else:
        write_tokenizer(sft, out)
    write_beside(Directory(sft), out)


def _alter_config(model: Any, keys: tuple[str, ...], out: Path) -> None:
    """Takes the values of some keys from the live configuration."""
    if not keys:
        return
    config = reading.parsed_file(out / CONFIG)
    live = model.config.get_text_config().to_dict()
    for holder in (config, config.get("text_config")):
        if isinstance(holder, dict):
            main = holder is config.get("text_config") or "text_config" not in config
            holder.update({key: live[key] for key in keys if key in live and (main or key in holder)})
    (out / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def located(training: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """A recipe's `training` whose chat template is found: relative paths start from the recipe's own directory.

    Raises:
        RecipeError: it is a file that does not exist.
    """
    found = dict(training)
    path = found.get(TEMPLATE)
    if isinstance(path, str):
        local = directory / Path(path).expanduser()
        if local.exists():
            found[TEMPLATE] = str(local)
        elif path.endswith((".jinja", ".j2")):
            raise RecipeError(f"training.{TEMPLATE}: no such file: {local}", "check the path")
    return found


def template_identity(training: Mapping[str, Any], directory: Path) -> Any:
    """What the chat template of a recipe holds; None where it names none, the name itself where it is on the Hub."""
    path = located(training, directory).get(TEMPLATE)
    if path is None or not Path(path).exists():
        return path
    place = Path(path)
    files = [place] if place.is_file() else [place / name for name in tokenizer_files(Directory(place))]
    return [sha256_of(file) for file in files]
