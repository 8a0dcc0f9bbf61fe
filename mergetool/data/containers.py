"""The files that rows lie in: JSON lines, JSON, CSV, parquet, Arrow, what `save_to_disk` leaves, and directories of shards."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from mergetool import reading
from mergetool.errors import DataError, next_step

Numbered: TypeAlias = Iterator[tuple[int, Any]]

_STATE, _SPLITS = "state.json", "dataset_dict.json"  # of `Dataset.save_to_disk` and `DatasetDict.save_to_disk`
_SHARD = re.compile(r"(?P<split>.+?)-\d{3,6}-of-\d{3,6}\..+")
# gzip.BadGzipFile is an OSError; a cut file is an EOFError, and a damaged one what zlib says
_UNREADABLE = (EOFError, OSError, zlib.error)
_LONGEST = 1 << 26  # letters of a line: a file without line ends is not read whole
_WHOLE = 1 << 28  # bytes of a file that is one JSON value
_WILD = re.compile(r"[*?\[]")


def rows_in(path: Path) -> Numbered:
    """Yields (number, row) of a file, a directory or a pattern; the number is the line in JSON lines and counts elsewhere.

    Raises:
        DataError: there is no such file, its kind is not known, or it is damaged; the message names it.
    """
    if is_saved(path):
        yield from _saved(path)
        return
    files = files_of(path)
    if len(files) == 1:
        yield from _rows(files[0])
        return
    number = 0
    for file in files:
        for _, row in _rows(file):
            number += 1
            yield number, row


def files_of(path: Path) -> list[Path]:
    """The files that rows are read from, in their order.

    Args:
        path: a file; a directory of shards, or what `save_to_disk` has made; or a pattern such as `data/train-*.parquet`.

    Raises:
        DataError: there is none, or a directory holds several splits.
    """
    if is_saved(path):
        return [path / name for name in _shards_of_saved(path)]
    if path.is_dir():
        return _shards_of_directory(path)
    if path.exists():
        return [path]
    if _WILD.search(path.name):
        found = sorted(file for file in path.parent.glob(path.name) if file.is_file())
        if found:
            return found
        raise DataError(f"{path}: no file fits this pattern", "check the directory and the pattern")
    raise DataError(f"{path}: no such file", "check the path, or give a Hub id as org/name")


def is_saved(path: Path) -> bool:
    """Whether `save_to_disk` of the library `datasets` has made this directory."""
    return (path / _STATE).is_file() or (path / _SPLITS).is_file()


def _one_split(path: Path) -> Path:
    """The data set itself: of several splits the one called train, as of a data set of the Hub."""
    if not (path / _SPLITS).is_file():
        return path
    splits = [name for name in _loaded(path / _SPLITS).get("splits", []) if (path / name).is_dir()]
    if "train" in splits:
        return path / "train"
    raise DataError(f"{path}: holds several splits ({', '.join(splits)})", f"name one: {path.name}/{(splits or ['test'])[0]}")


def _shards_of_saved(path: Path) -> list[str]:
    split = _one_split(path)
    names = [one["filename"] for one in _loaded(split / _STATE).get("_data_files", [])]
    return [(split / name).relative_to(path).as_posix() for name in names]


def _shards_of_directory(path: Path) -> list[Path]:
    found = sorted(file for file in path.iterdir() if _kind(file) and file.is_file() and not file.name.startswith("."))
    found = [file for file in found if file.name != "dataset_infos.json"]
    if not found and (path / "data").is_dir():  # a snapshot of a data set of the Hub
        return _shards_of_directory(path / "data")
    if not found:
        raise DataError(f"{path}: a directory without data files", f"known kinds: {KINDS}")
    if len({_kind(file) for file in found}) > 1:
        raise DataError(f"{path}: a directory of files of several kinds", f"give a pattern: {path.name}/*{_kind(found[0])}")
    splits = sorted({match["split"] if (match := _SHARD.fullmatch(file.name)) else file.name for file in found})
    named = [name for name in splits if name.partition(".")[0].partition("-")[0] in ("train", "test", "validation", "dev")]
    if len(splits) > 1 and named:
        example = f"{path.name}/{named[0]}*" if _SHARD.fullmatch(found[0].name) else f"{path.name}/{named[0]}"
        raise DataError(f"{path}: holds several splits ({', '.join(splits)})", f"give one of them: {example}")
    return found


def _loaded(path: Path) -> dict[str, Any]:
    try:
        found = reading.parsed_file(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})", "the directory is damaged; save the data set again") from None
    return found if isinstance(found, dict) else {}


def _kind(path: Path) -> str | None:
    """The ending that says how a file is read; None of an unknown one."""
    name = path.name.lower()
    return next((ending for ending in READERS if name.endswith(ending)), None)


def _reader(path: Path) -> Callable[[Path], Numbered]:
    kind = _kind(path)
    if kind is None:
        raise DataError(f"{path}: this kind of file is not read", f"known kinds: {KINDS}")
    return READERS[kind]


def _rows(path: Path, read: Callable[[Path], Numbered] | None = None) -> Numbered:
    read = read or _reader(path)
    try:
        reading.opened(path).close()  # no pipe is waited for
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})", next_step(error)) from None
    yield from read(path)


def _text(path: Path, newline: str | None = None) -> Any:
    """An open text file, without the byte order mark that Windows programs write."""
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    return opener(path, "rt", encoding="utf-8-sig", newline=newline)


def _lines(path: Path) -> Numbered:
    number = 0
    try:
        with _text(path) as file:
            for number, line in enumerate(iter(partial(file.readline, _LONGEST), ""), 1):
                if len(line) == _LONGEST:
                    raise DataError(f"{path}: row {number}: has more than {_LONGEST:,} letters", "divide it, or leave it out")
                if line.strip():
                    yield number, reading.parsed(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: row {number}: not JSON ({error.msg} at column {error.colno})",
            "each line is one JSON object; correct or delete this one",
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: row {number + 1}: not UTF-8 text", "save the file as UTF-8") from None
    except _UNREADABLE as error:
        raise DataError(
            f"{path}: row {number + 1}: cannot be read ({error})", "the file is damaged or cut short; fetch it again"
        ) from None


def _json(path: Path) -> Numbered:
    try:
        with _text(path) as file:
            text = file.read(_WHOLE + 1) if path.stat().st_size <= _WHOLE else None
        if text is None or len(text) > _WHOLE:
            raise DataError(f"{path}: is one JSON value of more than {_WHOLE:,} letters", "save it as JSON lines")
        loaded = reading.parsed(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSON lines under a .json name, as many data sets have them
            yield from _lines(path)
            return
        raise DataError(f"{path}: line {error.lineno}: not JSON ({error.msg})", "correct it there") from None
    except (UnicodeDecodeError, *_UNREADABLE) as error:
        raise DataError(f"{path}: cannot be read ({error})", "the file is damaged; fetch it again") from None
    if not isinstance(loaded, list):
        loaded = [loaded]
    yield from enumerate(loaded, 1)


def _csv(path: Path, delimiter: str = ",") -> Numbered:
    """Every cell is text; lists of messages in a cell are read where they are JSON."""
    limit = csv.field_size_limit(_LONGEST)  # an answer may be longer than Python's 128 KiB
    number = 0
    try:
        with _text(path, newline="") as file:
            for number, row in enumerate(csv.DictReader(file, delimiter=delimiter), 1):
                if None in row or None in row.values():
                    raise DataError(f"{path}: row {number}: has not as many cells as the first line", "correct or delete it")
                yield number, {key: _cell(value) for key, value in row.items()}
    except csv.Error as error:
        raise DataError(f"{path}: row {number + 1}: not CSV ({error})", "correct or delete it") from None
    except (UnicodeDecodeError, *_UNREADABLE) as error:
        raise DataError(f"{path}: row {number + 1}: cannot be read ({error})", "save the file as UTF-8") from None
    finally:
        csv.field_size_limit(limit)


def _cell(text: str) -> Any:
    """Messages as JSON, and the words for a label; everything else is the text that it is."""
    if text in ("True", "False", "true", "false"):
        return text.lower() == "true"
    if text[:2] == "[{" and text.endswith("]"):
        try:
            return reading.parsed(text)
        except ValueError:
            return text
    return text


def _tsv(path: Path) -> Numbered:
    return _csv(path, "\t")


def _parquet(path: Path) -> Numbered:
    import pyarrow.parquet

    with _arrow_errors(path, "parquet"), pyarrow.parquet.ParquetFile(path) as file:
        yield from _batches(file.iter_batches(batch_size=1024), file.schema_arrow)


def _arrow(path: Path) -> Numbered:
    import pyarrow
    import pyarrow.ipc

    with _arrow_errors(path, "Arrow"), pyarrow.memory_map(str(path)) as source:
        try:
            stream: Any = pyarrow.ipc.open_stream(source)  # as `datasets` writes it
            batches: Any = stream
        except pyarrow.ArrowInvalid:
            source.seek(0)
            stream = pyarrow.ipc.open_file(source)
            batches = (stream.get_batch(index) for index in range(stream.num_record_batches))
        yield from _batches(batches, stream.schema)


def _saved(path: Path) -> Numbered:
    split = _one_split(path)
    number = 0
    for name in _shards_of_saved(split):
        for _, row in _rows(split / name, _arrow):
            number += 1
            yield number, row


def _batches(batches: Any, schema: Any) -> Numbered:
    decode = _decoder(schema)
    number = 0
    for batch in batches:
        batch.validate(full=True)  # offsets that point elsewhere end the process
        for at in range(0, batch.num_rows, 1024):  # an uncut table would be as many Python objects at once
            for row in batch.slice(at, 1024).to_pylist():
                number += 1
                yield number, decode(row)


def _decoder(schema: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What makes a row of what is stored: `datasets` keeps objects of many forms as JSON text, and says so in the schema."""
    about = (schema.metadata or {}).get(b"huggingface", b"")
    if b'"Json"' not in about:
        return lambda row: row
    from datasets import Features

    return Features.from_arrow_schema(schema).decode_example


class _arrow_errors:
    """Turns what pyarrow says of a damaged file into one line."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        import pyarrow.lib

        if isinstance(error, (pyarrow.lib.ArrowException, OSError, ValueError, OverflowError, SystemError)):
            raise DataError(
                f"{self.path}: not a readable {self.kind} file ({error})",
                "the file is damaged or of another kind; fetch it again",
            ) from None


READERS: Mapping[str, Callable[[Path], Numbered]] = MappingProxyType(
    {
        ".jsonl": _lines,
        ".jsonl.gz": _lines,
        ".ndjson": _lines,
        ".json": _json,
        ".json.gz": _json,
        ".csv": _csv,
        ".csv.gz": _csv,
        ".tsv": _tsv,
        ".parquet": _parquet,
        ".arrow": _arrow,
    }
)
KINDS = ", ".join(READERS)
