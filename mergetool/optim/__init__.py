"""Online merging: torch optimizers that merge the SFT delta into every K-th step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergetool.exports import lazy

if TYPE_CHECKING:
    from mergetool.optim.base import MergedAmount
    from mergetool.optim.null_space import OnNullSpace
    from mergetool.optim.online import OnlineMerge
    from mergetool.optim.optimizers import OnDARE, OnLinear, OnTIES
    from mergetool.optim.reference import Reference

_LAZY = {
    "MergedAmount": "mergetool.optim.base",
    "OnDARE": "mergetool.optim.optimizers",
    "OnLinear": "mergetool.optim.optimizers",
    "OnNullSpace": "mergetool.optim.null_space",
    "OnTIES": "mergetool.optim.optimizers",
    "OnlineMerge": "mergetool.optim.online",
    "Reference": "mergetool.optim.reference",
}
__all__ = [
    "MergedAmount",
    "OnDARE",
    "OnLinear",
    "OnNullSpace",
    "OnTIES",
    "OnlineMerge",
    "Reference",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _LAZY)
