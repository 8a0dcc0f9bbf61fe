"""What makes two models, data files or recipes the same: what they hold.

Of a checkpoint on this disk that is every byte of its weights, and of the files that decide what it computes from a text:
configuration, generation settings, tokenizer, chat template. Of a repository of the Hub it is the commit. Where a file lies
and when it was written does not matter. Hashes are kept, see `checkpoint.content`: a file that has not changed is not read
again.

Keys of results.jsonl that were made before identity was content are still recognised: `legacy_checkpoint_identity`.
"""

from __future__ import annotations

import json
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from mergetool import hub, reading
from mergetool.checkpoint.adapter import ADAPTER_CONFIG
from mergetool.checkpoint.content import bytes_hash, sha256_of, weights_hash
from mergetool.checkpoint.layout import INDEX
from mergetool.checkpoint.model_files import needed_beside
from mergetool.checkpoint.place import Directory
from mergetool.data.containers import files_of
from mergetool.data.rows import data_commit
from mergetool.errors import CheckpointError, DataError
from mergetool.hub.model_reference import ModelReference

_DECIDING = (".json", ".jinja", ".model", ".spm", ".tiktoken", ".txt", ".py")

_SAMPLES, _SAMPLE_BYTES = 32, 4096


def digest(value: Any) -> str:
    """A hash of plain data; the order of keys does not matter."""
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


@lru_cache(maxsize=0)  # keeps nothing: hashes are kept where files are looked at; callers may still call `cache_clear`
def checkpoint_identity(source: Path | str) -> str:
    """A hash of all that a model computes with.

    Args:
        source: a directory, or ``MODEL[+ADAPTER]`` with Hub ids.

    Raises:
        CheckpointError: the directory has no weights, or they cannot be read; or the Hub refuses.
    """
    if not isinstance(source, Path):
        return digest(["hub", *_commits(source)])
    parts = ModelReference.read(source)
    places = [Path(part) for part in (parts.model, parts.adapter) if part is not None]
    return digest(["checkpoint", [[_weights(place), beside_weights(place)] for place in places]])


def beside_weights(directory: Path) -> dict[str, str]:
    """File name -> hash, of every file beside the weights that decides what a model computes from a text: settings,
    tokenizer, templates, code. Logs, pictures and licences do not.
    """
    names = [name for name in needed_beside(Directory(directory)) if name.endswith(_DECIDING)]
    names += [name for name in (ADAPTER_CONFIG,) if (directory / name).is_file()]
    for name in names:
        if (directory / name).stat().st_size > reading.LIMIT:
            raise CheckpointError(f"{directory / name}: has more than {reading.LIMIT:,} bytes", "fetch the file again")
    return {name: bytes_hash(directory / name) for name in sorted(names)}


def _weights(directory: Path) -> dict[str, str]:
    return {path.name: weights_hash(path) for path in _weight_files(directory)}


def _weight_files(directory: Path) -> list[Path]:
    """The files that a loader would read: those of the index, where there is one."""
    files = sorted(directory.glob("*.safetensors")) or sorted(directory.glob("*.bin"))
    if not files:
        what = "no such model directory" if not directory.is_dir() else "no model.safetensors"
        raise CheckpointError(f"{directory}: {what}", "give a checkpoint directory as save_pretrained writes it")
    index = directory / INDEX
    if index.is_file():
        try:
            listed = set(reading.parsed_file(index)["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{index}: cannot be read ({error})", "fetch the index again") from None
        return [directory / name for name in sorted(map(str, listed))]
    return files


def _commits(source: str) -> list[str]:
    return [f"{one.repo}@{one.commit}" for one in map(hub.pin, source.split("+"))]


def legacy_checkpoint_identity(source: Path | str) -> str:
    """What `checkpoint_identity` was before it saw all of a checkpoint: sizes and 32 blocks of each weight file.

    Keys of results.jsonl were made from it. It is used to find what was measured then, and for nothing else.

    Raises:
        CheckpointError: the directory has no weights, or the Hub refuses.
    """
    if not isinstance(source, Path):
        return digest(["hub", *_commits(source)])
    files = sorted(source.glob("*.safetensors")) or sorted(source.glob("*.bin"))
    if not files:
        _weight_files(source)  # says what is missing
    found = sha256()
    for path in files:
        size = path.stat().st_size
        found.update(f"{path.name} {size}".encode())
        with reading.opened(path) as file:
            for at in range(_SAMPLES):
                file.seek(at * max(size - _SAMPLE_BYTES, 0) // (_SAMPLES - 1))
                found.update(file.read(_SAMPLE_BYTES))
    return found.hexdigest()[:16]


@lru_cache(maxsize=64)
def data_identity(source: Path | str) -> str:
    """A hash of a data file's bytes; of a directory of shards, of theirs; of a data set of the Hub, of its commit.

    Raises:
        DataError: there is no such file, or the Hub refuses.
    """
    if not isinstance(source, Path):
        return digest(["hub", source, data_commit(source)])
    try:
        if source.is_file():
            return sha256_of(source)[:16]
        return digest(["files", [sha256_of(file) for file in files_of(source)]])
    except CheckpointError as error:
        raise DataError(error.message, error.hint) from None
