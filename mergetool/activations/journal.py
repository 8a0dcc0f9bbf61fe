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

from mergetool import reading
from mergetool.activations.artifact import Site
from mergetool.activations.survey import Survey, Unit
from mergetool.checkpoint.working_directory import partial_directory
from mergetool.errors import OutputError
from mergetool.files import Lock

_RUN = "run.json"


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
        left = work / _RUN
        if fresh or not left.is_file():
            for old in work.iterdir():
                old.unlink()
            left.write_text(json.dumps({"fingerprint": fingerprint}), encoding="utf-8")
        elif reading.parsed_file(left).get("fingerprint") != fingerprint:
            raise OutputError(
                f"{work}: an interrupted run of another model or of other rows", "run again with --fresh to discard it"
            )
        yield work
        shutil.rmtree(work)
    finally:
        lock.release()


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
