"""Calibration: the second moments of what every map of a model reads, on rows whose outputs should stay.

calibrate(model, data, out)   a checkpoint's calibration, as one safetensors file
measure(model, sequences)     the same of a live model, in memory
Calibration.load(path)        reads it again, a tensor at a time, and makes projectors of it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergetool.exports import lazy

if TYPE_CHECKING:
    from mergetool.activations.artifact import Calibration
    from mergetool.activations.collect import measure
    from mergetool.activations.cost import estimate
    from mergetool.activations.run import calibrate

_LAZY = {
    "Calibration": "mergetool.activations.artifact",
    "calibrate": "mergetool.activations.run",
    "estimate": "mergetool.activations.cost",
    "measure": "mergetool.activations.collect",
}
__all__ = [
    "Calibration",
    "calibrate",
    "estimate",
    "measure",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _LAZY)
