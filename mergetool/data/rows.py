"""Reading rows: JSON lines (plain or gzipped), JSON, parquet, or a data set of the Hub."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mergetool.config.sources import resolve_source
from mergetool.errors import DataError

KINDS = ".jsonl, .jsonl.gz, .json, .parquet"


def read_rows(source: str | Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Reads the rows of a file or of a Hub data set.

    Args:
        source: a path, `lab:NAME`, or a Hub id `org/name[:split]` (or `org/name:config:split`; split train by default).
        limit: read no more than this many rows.

    Raises:
        DataError: the source is missing or empty, or a row is no object; the message names file and row.
    """
    return [row for _, row in islice(numbered_rows(source), limit)]


def numbered_rows(source: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (number, row) one by one; the number is the line in JSON lines and counts from 1 elsewhere.

    Raises:
        DataError: as read_rows; on the first step if the source is missing or empty.
    """
    place = source if isinstance(source, Path) else resolve_source(source, Path.cwd())
    rows = _open(place) if isinstance(place, Path) else _hub(place)
    number = 0
    for number, row in rows:
        if not isinstance(row, dict):
            raise DataError(
                f"{source}: row {number} is a {type(row).__name__}, not an object with keys",
                'each row looks like {"prompt": ..., "chosen": ..., "rejected": ...}',
            )
        yield number, row
    if not number:
        raise DataError(f"{source}: no rows", "the file is empty; give one with at least one row")


def _open(path: Path) -> Iterator[tuple[int, Any]]:
    if path.is_dir():
        raise DataError(f"{path}: a directory, not a data file", f"name one file in it ({KINDS})")
    if not path.exists():
        raise DataError(f"{path}: no such file", "check the path, or give a Hub id as org/name")
    name = path.name.lower()
    if name.endswith((".jsonl", ".jsonl.gz", ".ndjson")):
        return _lines(path)
    if name.endswith((".json", ".json.gz")):
        return _json(path)
    if name.endswith(".parquet"):
        return _parquet(path)
    raise DataError(f"{path}: this kind of file is not read", f"known kinds: {KINDS}")


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: row {number}: not JSON ({error.msg} at column {error.colno})",
            "each line is one JSON object; mend or delete this one",
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: row {number + 1}: not UTF-8 text", "save the file as UTF-8") from None
    except (EOFError, OSError) as error:  # gzip.BadGzipFile is an OSError; a cut file is an EOFError
        raise DataError(
            f"{path}: row {number + 1}: cannot be read ({error})", "the file is damaged or cut short; fetch it again"
        ) from None


def _json(path: Path) -> Iterator[tuple[int, Any]]:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            loaded = json.load(file)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSON lines under a .json name, as many data sets have them
            yield from _lines(path)
            return
        raise DataError(f"{path}: line {error.lineno}: not JSON ({error.msg})", "mend it there") from None
    except (UnicodeDecodeError, EOFError, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error})", "the file is damaged; fetch it again") from None
    if not isinstance(loaded, list):
        loaded = [loaded]
    yield from enumerate(loaded, 1)


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow.lib
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not a readable parquet file ({error})", "the file is damaged or of another kind; fetch it again"
        ) from None


def data_commit(source: str) -> str | None:
    """The commit that a data set of the Hub is read at in this run; None offline, where `datasets` has its own cache.

    Raises:
        DataError: there is no such data set, it is refused, or the Hub cannot be reached.
    """
    from mergetool import hub

    return None if hub.offline() else hub.pin(source.partition(":")[0], "dataset", DataError).commit


def _hub(source: str) -> Iterator[tuple[int, Any]]:
    from datasets import load_dataset

    name, *rest = source.split(":")
    config, split = (None, *rest, "train")[:2] if len(rest) < 2 else rest
    revision = data_commit(source) or name.partition("@")[2] or None
    try:
        dataset = load_dataset(name.partition("@")[0], config, split=split, revision=revision)
    except Exception as error:  # the library and its transports raise dozens of kinds; all mean: not readable
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{source}: cannot be read from the Hub ({reason[:200]})", "check the name and the network, or give a file"
        ) from None
    yield from enumerate(dataset, 1)
