"""The models along a training run: those that `align` keeps beside its result, or a trainer's own checkpoints."""

from __future__ import annotations

import re
from pathlib import Path

from mergetool.checkpoint.manifest import Manifest
from mergetool.errors import CheckpointError

FOLDER = "along"
"""Where in a result they lie, each in `step-N`."""
_STEP = re.compile(r"(?:step|checkpoint|global_step)[-_]?(\d+)")


def models_along(run: Path) -> dict[int, Path]:
    """Step -> the model after it, in their order; of a result of `align` the result itself is one of them.

    Args:
        run: the directory of a finished run, or what a trainer saves its checkpoints in.

    Raises:
        CheckpointError: there are none.
    """
    own = {} if (result := _result(run)) is None else {result: run}
    place = run / FOLDER if own else run
    found = {int(step.group(1)): path for path in _folders(place) if (step := _STEP.fullmatch(path.name))}
    if not found:
        raise CheckpointError(
            f"{run}: no models along a run are in it",
            "train with `mergetool align --along 0.25 --along 0.5 …`, or name a trainer's directory of checkpoint-N",
        )
    return dict(sorted({**own, **found}.items()))


def _result(run: Path) -> int | None:
    """The step of the weights that `align` has written; None of another directory."""
    try:
        return Manifest.read(run).steps
    except CheckpointError:
        return None


def _folders(place: Path) -> list[Path]:
    try:
        return [path for path in place.iterdir() if (path / "config.json").is_file()]
    except OSError:
        return []
