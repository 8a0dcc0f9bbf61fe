"""Reading rows: from files and directories of this disk, or from a data set of the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mergetool.config.sources import resolve_source
from mergetool.data.containers import rows_in
from mergetool.errors import DataError


def read_rows(source: str | Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Reads the rows of a file or of a Hub data set.

    Args:
        source: a path: a file of `containers.READERS`, a directory of shards or of `save_to_disk`, a pattern; `lab:NAME`; or a
            Hub id `org/name[:split]` or `org/name:config:split` (split train by default), where a split may be a slice or
            a sum, as `datasets` reads it: `train[:10%]`.
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
    rows = rows_in(place) if isinstance(place, Path) else _hub(place)
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


def hub_parts(source: str) -> tuple[str, str | None, str]:
    """Name (with its revision), configuration and split of a data set of the Hub; a split may hold colons in brackets."""
    name, _, rest = source.partition(":")
    first, colon, second = rest.partition(":")
    if not colon or "[" in first:
        return name, None, rest or "train"
    return name, first, second


def data_commit(source: str) -> str | None:
    """The commit that a data set of the Hub is read at in this run; None offline, where `datasets` has its own cache.

    Raises:
        DataError: there is no such data set, it is refused, or the Hub cannot be reached.
    """
    from mergetool import hub

    return None if hub.offline() else hub.pin(source.partition(":")[0], "dataset", DataError).commit


def _hub(source: str) -> Iterator[tuple[int, Any]]:
    from datasets import load_dataset

    name, config, split = hub_parts(source)
    revision = data_commit(source) or name.partition("@")[2] or None
    try:
        dataset = load_dataset(name.partition("@")[0], config, split=split, revision=revision)
    except Exception as error:  # the library and its transports raise dozens of kinds; all mean: not readable
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{source}: cannot be read from the Hub ({reason[:200]})", "check the name and the network, or give a file"
        ) from None
    yield from enumerate(dataset, 1)
