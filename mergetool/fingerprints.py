"""What a checkpoint, a data file and a candidate are, as short hashes: the keys of results.jsonl."""

from __future__ import annotations

import json
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from mergetool import hub
from mergetool.data.rows import data_commit
from mergetool.errors import CheckpointError, DataError

SAMPLES, SAMPLE_BYTES = 32, 4096


def digest(value: Any) -> str:
    """A hash of plain data; the order of keys does not matter."""
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


@lru_cache(maxsize=256)
def checkpoint_identity(source: Path | str) -> str:
    """A hash that changes when the weights do.

    From sizes, headers and 32 evenly spaced blocks of each weight file: any training moves nearly every entry, and
    hashing all of a 7B model for each study would take a minute. On the Hub the commit says it.

    Raises:
        CheckpointError: the directory has no weights, or the Hub refuses.
    """
    if not isinstance(source, Path):
        return digest(["hub", *(f"{one.repo}@{one.commit}" for one in map(hub.pin, source.split("+")))])
    files = sorted(source.glob("*.safetensors")) or sorted(source.glob("*.bin"))
    if not files:
        what = "no such model directory" if not source.is_dir() else "no model.safetensors"
        raise CheckpointError(f"{source}: {what}", "give a checkpoint directory as save_pretrained writes it")
    found = sha256()
    for path in files:
        size = path.stat().st_size
        found.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for at in range(SAMPLES):
                file.seek(at * max(size - SAMPLE_BYTES, 0) // (SAMPLES - 1))
                found.update(file.read(SAMPLE_BYTES))
    return found.hexdigest()[:16]


@lru_cache(maxsize=64)
def data_identity(source: Path | str) -> str:
    """A hash of a data file's bytes; of a data set of the Hub, of its commit.

    Raises:
        DataError: there is no such file, or the Hub refuses.
    """
    if not isinstance(source, Path):
        return digest(["hub", source, data_commit(source)])
    if not source.is_file():
        raise DataError(f"{source}: no such file", "check the path, or give a Hub id as org/name")
    return sha256(source.read_bytes()).hexdigest()[:16]
