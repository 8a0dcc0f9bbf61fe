"""Model references: a directory on this disk, or a repository on the Hub."""

from __future__ import annotations

from pathlib import Path

from mergetool.checkpoint.layout import Layout, read_layout
from mergetool.errors import CheckpointError
from mergetool.sources import looks_like_hub_id

WANTED = ["*.safetensors", "*.json", "tokenizer*", "*.model", "*.jinja", "merges.txt", "vocab.*"]


def local_directory(reference: str | Path) -> Path:
    """The directory that a model reference stands for; a Hub repository is fetched into the standard cache first.

    Args:
        reference: a path, or ``org/name[@revision]``.

    Raises:
        CheckpointError: there is no such directory, or the Hub does not answer or refuses.
    """
    text = str(reference)
    if isinstance(reference, Path) or Path(text).is_dir() or not looks_like_hub_id(text):
        return Path(text)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo, _, revision = text.partition("@")
    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=WANTED))
    except LocalEntryNotFoundError:
        raise CheckpointError(
            f"{text}: no such directory, and the Hub cannot be reached", "check the path or the network, or HF_HUB_OFFLINE"
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{text}: cannot be fetched from the Hub ({reason})", "check the name, or log in") from None


def open_layout(reference: str | Path) -> Layout:
    """The headers behind a model reference: ``MODEL`` or ``MODEL+ADAPTER``, each a directory or a Hub id.

    Raises:
        CheckpointError: a part is missing, damaged, or does not fit the other.
    """
    model, *adapters = str(reference).split("+") if not Path(str(reference)).is_dir() else [str(reference)]
    if len(adapters) > 1:
        raise CheckpointError(f"{reference}: has more than one adapter", "merge one adapter at a time")
    layout = read_layout(local_directory(model))
    if not adapters:
        return layout
    if layout.pickled:
        raise CheckpointError(f"{model}: an adapter on pickled weights is not supported", "save the model as safetensors")
    from mergetool.checkpoint.adapter import with_adapter

    return with_adapter(layout, local_directory(adapters[0]))
