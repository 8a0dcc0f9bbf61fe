"""`calibrate`: from a checkpoint and rows to a calibration's file; resumable, and made once for the same inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergetool.activations.artifact import Calibration, Site
from mergetool.activations.collect import BATCH_SIZE, ENERGY, Progress, collect
from mergetool.activations.journal import is_whole, read_group, stored_in, workspace, write_group
from mergetool.activations.rows import MAX_LENGTH, calibration_rows, shown
from mergetool.activations.survey import GROUP_BYTES, RANK, first_tokens, survey, tensors_of
from mergetool.errors import CheckpointError, OutputError
from mergetool.fingerprints import checkpoint_identity, digest
from mergetool.hub.loading import load_model
from mergetool.version import __version__


@dataclass(frozen=True)
class Calibrated:
    """What `calibrate` gave: the file, its calibration, and whether it was there before the call."""

    out: Path
    calibration: Calibration
    already_done: bool = False


@dataclass(frozen=True)
class Inputs:
    """What a calibration is made from: token ids of the rows, and the facts that its file will name."""

    sequences: Sequence[Sequence[int]]
    facts: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """The identity of the calibration."""
        return self.facts["fingerprint"]


def inputs_of(
    model: str | Path, sources: Sequence[str | Path], rank: int, energy: float, limit: int | None, max_length: int
) -> Inputs:
    """What a calibration of a model on rows is made from; see `calibrate` for the arguments and errors."""
    sequences, told = calibration_rows(model, sources, limit, max_length)
    facts: dict[str, Any] = {
        "model": {"source": shown(model), "identity": checkpoint_identity(model)},
        "rows": {"sources": [shown(one) for one in sources], "identity": digest(sequences), **told},
        "rank": rank,
        "energy": energy,
        "max_length": max_length,
    }
    facts["fingerprint"] = digest([facts["model"]["identity"], facts["rows"]["identity"], rank, energy])
    return Inputs(sequences, facts)


def calibrate(
    model: str | Path,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    rank: int = RANK,
    energy: float = ENERGY,
    limit: int | None = None,
    max_length: int = MAX_LENGTH,
    batch_size: int = BATCH_SIZE,
    group_bytes: int = GROUP_BYTES,
    device: str | None = None,
    fresh: bool = False,
    progress: Progress = lambda done, total, what: None,
    inputs: Inputs | None = None,
) -> Calibrated:
    """Calibrates a checkpoint. The same call after an interruption goes on from the last group of maps that was finished.

    Args:
        model: θ_s: a checkpoint directory or a Hub id.
        data: rows of what should stay, of any form; several sources are read one after the other.
        out: the file to write.
        rank, energy: eigenpairs of each moment: the fewest that hold `energy` of the trace, at most `rank`.
        limit: rows read of each source.
        max_length: tokens of a row; what is longer loses its end.
        batch_size: rows in a batch at most; no result depends on it beyond rounding.
        group_bytes: sums held at a time; more of them take more passes over the rows.
        device: None: a GPU where there is one.
        fresh: discard what an interrupted run left, and a file that stands under `out`.
        progress: told (tokens done, tokens in all passes, what is being done).
        inputs: of `inputs_of`, where they have been read already.

    Raises:
        DataError: no row is usable, or they are of another tokenizer. CheckpointError: the model cannot be used.
        OutputError: `out` is taken, or is being written.
    """
    out = Path(out)
    sources = [data] if isinstance(data, str | Path) else list(data)
    inputs = inputs or inputs_of(model, sources, rank, energy, limit, max_length)
    sequences, facts = inputs.sequences, dict(inputs.facts)
    if not fresh and (done := _done_before(out, facts["fingerprint"])) is not None:
        return Calibrated(out, done, already_done=True)
    facts["versions"] = _versions()
    with workspace(out, facts["fingerprint"], fresh) as work:
        live = load_model(model, device)
        found = _collect(live, sequences, work, rank, energy, batch_size, group_bytes, facts, progress)
        del live  # the file is put together in memory
        found.save(out)
    return Calibrated(out, Calibration.load(out))


def _done_before(out: Path, fingerprint: str) -> Calibration | None:
    """The calibration under `out`, where it is this very one.

    Raises:
        OutputError: something else stands there.
    """
    if not out.exists():
        return None
    try:
        found = Calibration.load(out)
    except CheckpointError:
        raise OutputError(f"{out}: exists and is no calibration", "choose another OUT") from None
    if found.facts.get("fingerprint") != fingerprint:
        raise OutputError(
            f"{out}: is a calibration of another model, of other rows or at another rank",
            "choose another OUT, or run again with --fresh to replace it",
        )
    return found


def _collect(
    live: Any,
    sequences: Sequence[Sequence[int]],
    work: Path,
    rank: int,
    energy: float,
    batch_size: int,
    group_bytes: int,
    facts: Mapping[str, Any],
    progress: Progress,
) -> Calibration:
    """The calibration of a live model, its groups written down one by one; those of an interrupted run are read."""
    maps, sites = survey(live, first_tokens(sequences)), dict[str, Site]()
    groups, tokens = maps.groups(group_bytes), sum(map(len, sequences))
    where: dict[str, Path] = {}
    for number, group in enumerate(groups):
        journal = work / f"group-{number + 1:05d}-{digest([unit.key for unit in group])}.safetensors"
        done = number * tokens

        def told(more: int) -> None:
            nonlocal done
            done += more
            progress(done, len(groups) * tokens, f"group {number + 1} of {len(groups)}")  # noqa: B023

        if not is_whole(journal):
            write_group(
                journal, maps, collect(live, sequences, maps, group, rank=rank, energy=energy, batch_size=batch_size, told=told)
            )
        read = read_group(journal, maps)
        sites |= read
        where |= dict.fromkeys(read, journal)

    def stored(name: str) -> Any:
        return stored_in(where[name.rpartition(".")[0]], name)

    return Calibration(facts, sites, tensors_of(maps, sites), stored, str(work))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"mergetool": __version__, **{name: version(name) for name in ("torch", "transformers")}}
