"""Reference log-probabilities on disk, by content: the second run on the same rows and reference reads them back."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mergetool.files import cache_directory

TOKENS = ("prompt_ids", "chosen_ids", "rejected_ids", "completion_ids", "KL_completion_ids")


def folder() -> Path:
    """Where they are kept."""
    return cache_directory("reference")


def key_of(dataset: Any, about: dict[str, Any]) -> str:
    """The identity of what is computed: the tokens of every row, and all that changes a log-probability.

    Args:
        dataset: tokenized.
        about: hash of the reference's weights, precision, lengths, batch size (padding changes the last bits), loss.
    """
    import torch

    digest = hashlib.sha256(json.dumps({**about, "torch": torch.__version__}, sort_keys=True, default=str).encode())
    for column in TOKENS:
        if column in dataset.column_names:
            digest.update(column.encode())
            for batch in dataset.select_columns([column]).iter(batch_size=1000):
                digest.update(json.dumps(batch[column]).encode())
    return digest.hexdigest()[:32]


def with_reference(dataset: Any, key: str, compute: Callable[[], Any]) -> tuple[Any, bool]:
    """The data set with its reference columns, read back or computed and kept.

    Args:
        dataset: without them.
        key: from key_of.
        compute: gives the data set with them.

    Returns:
        The data set, and whether the columns were read back. A cache that cannot be read or written is no error.
    """
    path = folder() / f"{key}.safetensors"
    kept = _read(path, len(dataset))
    if kept:
        for name, values in kept.items():
            dataset = dataset.add_column(name, values)
        return dataset, True
    result = compute()
    new = [name for name in result.column_names if name not in dataset.column_names]
    _write(path, {name: result.with_format("numpy")[name][:] for name in new})
    return result, False


def _read(path: Path, rows: int) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        kept = load_file(path)
    except (OSError, SafetensorError):
        return {}
    return kept if all(len(values) == rows for values in kept.values()) else {}


def _write(path: Path, columns: dict[str, Any]) -> None:
    import numpy
    from safetensors.numpy import save_file

    partial = path.with_suffix(f".{os.getpid()}.partial")
    with contextlib.suppress(OSError):  # a full or read-only disk costs the next run time, not this one its result
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: numpy.ascontiguousarray(values) for name, values in columns.items()}, partial)
        os.replace(partial, path)
