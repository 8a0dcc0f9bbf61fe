"""The tax rate of a delta: the share of it that lies where calibration rows live, so that their outputs change.

A map W reads inputs x with second moment C = E[x xᵀ], whose largest eigenvectors are U_r. A change Δ of W changes outputs by
E‖Δx‖² = tr(Δ C Δᵀ), most of it through U_r: the rate is ‖Δ·U_r‖²/‖Δ‖², 0 where no such input sees the change, 1 where all of
the change is seen. For a Δ without any direction of its own it is r/n.
"""

from __future__ import annotations

from typing import NamedTuple

from mergetool.activations.artifact import Calibration
from mergetool.checkpoint.reader import Reader
from mergetool.errors import CheckpointError
from mergetool.ops.blocks import BLOCK

ENERGY = 0.9
"""The share of tr(C) that the directions counted as the rows' own hold: the fewest that do, of those that are kept."""


class TaxRate(NamedTuple):
    """Of one tensor: the share of its delta, and what the share would be by chance, r/n."""

    rate: float | None
    chance: float


def check_calibration(calibration: Calibration, shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuse a calibration of another model.

    Raises:
        CheckpointError: it knows none of the tensors, or some in other shapes.
    """
    known = [name for name in shapes if name in calibration]
    unlike = next((name for name in known if calibration.tensors[name].shape != shapes[name]), None)
    if unlike is not None or not known:
        what = f"has {unlike} in another shape" if unlike else "knows none of the model's tensors"
        raise CheckpointError(f"{calibration.label}: {what}", "calibrate the model that --base names")


def tax_rate(calibration: Calibration, name: str, model: Reader, base: Reader, names: tuple[str, str]) -> TaxRate | None:
    """The tax rate of one matrix; None for a tensor that is no map with one set of inputs in its last dimension.

    Args:
        calibration: of the base.
        name: as the calibration calls the tensor.
        model, base: readers of the two checkpoints. names: the tensor's names in their files.
    """
    known = calibration.tensors.get(name)
    if known is None or len(known.shape) != 2 or len(known.columns) != 1 or known.columns[0] is None:
        return None
    key = known.columns[0]
    site = calibration.sites[key]
    if site.diagonal:
        return None
    moments = calibration.moments(key)
    assert moments.vectors is not None  # it is not diagonal
    reached = (moments.values.double().cumsum(0) >= ENERGY * site.trace).nonzero()
    rank = int(reached[0]) + 1 if len(reached) else moments.values.numel()
    directions = moments.vectors[:, :rank].contiguous()
    rows, width = known.shape
    step, inside, all_of_it = max(1, BLOCK // width), 0.0, 0.0
    for first in range(0, rows, step):
        start, stop = first * width, min(first + step, rows) * width
        delta = model.block(names[0], start, stop).float() - base.block(names[1], start, stop).float()
        inside += float((delta.view(-1, width) @ directions).square().sum())
        all_of_it += float(delta.square().sum())
    return TaxRate(inside / all_of_it if all_of_it else None, rank / width)
