"""Where a calibration works until it is whole: beside its output, locked, one file for each finished group of maps."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xxhash import xxh3_128

from mergetool import reading
from mergetool.activations.artifact import Site
from mergetool.activations.survey import Survey, Unit
from mergetool.checkpoint.working_directory import partial_directory
from mergetool.errors import OutputError, next_step
from mergetool.files import Lock, write_whole

_RUN, _HASH = "run.json", ".xxh3"


@contextmanager
def workspace(out: Path, fingerprint: str, fresh: bool) -> Iterator[Path]:
    """The directory beside `out` where finished groups are kept; removed when all went well.

    Raises:
        OutputError: it cannot be made, another run holds it, or it belongs to other inputs.
    """
    work = partial_directory(out)
    lock = Lock(out.with_name(f".{out.name}.mergetool-lock"))
    try:
        work.mkdir(parents=True, exist_ok=True)
        taken = lock.take(0)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror or error})", "check the disk and permissions") from None
    if not taken:
        raise OutputError(f"{out}: another run is writing it now", "wait for it, or choose another OUT")
    try:
        _take_over(work, fingerprint, fresh)
        yield work
        shutil.rmtree(work)
    finally:
        lock.release()


def _take_over(work: Path, fingerprint: str, fresh: bool) -> None:
    """Go on with what an interrupted run left, where it is this run's own; it is removed for `fresh` alone."""
    left, discard = work / _RUN, "run again with --fresh to discard it"
    try:
        found = None if fresh else reading.parsed_file(left)
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise OutputError(f"{left}: cannot be read ({error.strerror or error})", next_step(error)) from None
    except ValueError:
        raise OutputError(f"{work}: an interrupted run whose {_RUN} is damaged", discard) from None
    if found is None:
        if not fresh and any(work.glob("group-*.safetensors")):
            raise OutputError(f"{work}: an interrupted run without its {_RUN}", discard)
        for old in work.iterdir():
            old.unlink()
        write_whole(left, json.dumps({"fingerprint": fingerprint}))
    elif not isinstance(found, dict) or found.get("fingerprint") != fingerprint:
        raise OutputError(f"{work}: an interrupted run of another model or of other rows", discard)


def is_whole(journal: Path) -> bool:
    """Whether a finished group is there with the bytes that were written; a damaged one is removed, to be made anew."""
    noted = journal.with_suffix(_HASH)
    try:
        if reading.text(noted) == _hash(journal):
            return True
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    for one in (journal, noted):
        one.unlink(missing_ok=True)
    return False


def _hash(path: Path) -> str:
    hasher = xxh3_128()
    with reading.opened(path) as file:
        while piece := file.read(1 << 20):
            hasher.update(piece)
    return hasher.hexdigest()


def write_group(journal: Path, maps: Survey, made: Iterator[tuple[str, Site, dict[str, Any]]]) -> None:
    """Keep a finished group: its moments, and what is known of the maps by now."""
    from safetensors.torch import save_file

    tensors, sites = {}, {}
    for key, site, stored in made:
        sites[key] = asdict(site)
        tensors |= {f"{key}.{what}": tensor for what, tensor in stored.items()}
    # maps that came to light in this pass are known after a restart too
    known = {"sites": sites, "sides": maps.sides, "units": [list(unit) for unit in maps.units], "constants": maps.constants}
    part = journal.with_suffix(".part")
    save_file(tensors, part, metadata={"group": json.dumps(known)})
    with part.open("rb") as file:
        os.fsync(file.fileno())
    write_whole(journal.with_suffix(_HASH), _hash(part))
    part.replace(journal)


def read_group(journal: Path, maps: Survey) -> dict[str, Site]:
    """A group that an earlier run finished; `maps` learns what that run knew."""
    from safetensors import safe_open

    with safe_open(journal, framework="pt") as file:
        known = reading.parsed(file.metadata()["group"])
    maps.sides |= known["sides"]
    maps.units = [Unit(*unit) for unit in known["units"]]
    maps.constants = known["constants"]
    return {key: Site(**site) for key, site in known["sites"].items()}


def stored_in(path: Path, name: str) -> Any:
    """One tensor of a group."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)
