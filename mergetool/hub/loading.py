"""Models and tokenizers from checkpoints, as they are measured: in evaluation mode, without gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mergetool.errors import CheckpointError


def load_model(source: str | Path, device: str | None = None, dtype: str | None = None) -> Any:
    """A causal language model in evaluation mode.

    Args:
        source: a checkpoint directory or a Hub id.
        device: "cpu", "cuda", ...; None: a GPU where there is one.
        dtype: a torch type's name; None: float32 on the CPU (exact, and faster there), the checkpoint's own on a GPU.

    Raises:
        CheckpointError: transformers cannot make a model of it; its reason is in the message.
    """
    from transformers import AutoModelForCausalLM

    return loaded(AutoModelForCausalLM, source, device, dtype, "give a causal language model that transformers can load")


def loaded(kind: Any, source: str | Path, device: str | None, dtype: str | None, hint: str) -> Any:
    """What transformers' class `kind` makes of a checkpoint, in evaluation mode; see `load_model`."""
    import torch
    from transformers.utils import logging

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or ("float32" if device == "cpu" else "auto")
    source = model_directory(source)
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # one bar for each file of each candidate says nothing to anybody
    try:
        model = kind.from_pretrained(source, dtype=dtype, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{source}: {error}", hint) from None
    finally:
        if bar:
            logging.enable_progress_bar()
    return model.to(device).eval().requires_grad_(False)


def load_tokenizer(source: str | Path) -> Any:
    """The tokenizer of a checkpoint.

    Raises:
        CheckpointError: there is none.
    """
    from transformers import AutoTokenizer

    source = model_directory(source, weights=False)
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        hint = "put the tokenizer files beside the weights"
        raise CheckpointError(f"{source}: no tokenizer: {error}", hint) from None


def model_directory(source: str | Path, weights: bool = True) -> Path:
    """Where a checkpoint lies; of a Hub id, at the commit that this run has pinned, and never pickled."""
    from mergetool.hub.references import local_directory, local_tokenizer  # it takes torch with it

    found = local_directory(source) if weights else local_tokenizer(source)
    if not (found / "config.json").is_file():
        what = "no config.json" if found.is_dir() else "no such directory"
        raise CheckpointError(f"{source}: {what}", "give a checkpoint directory as save_pretrained writes it")
    return found
