"""Online merging: torch optimizers that merge the SFT delta into every K-th step."""

from __future__ import annotations

import importlib

_PUBLIC = {
    "OnDARE": "optimizers",
    "OnTIES": "optimizers",
    "OnLinear": "optimizers",
    "OnlineMerge": "online",
    "MergedAmount": "base",
    "Reference": "reference",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mergetool.optim' has no attribute '{name}'")
    return getattr(importlib.import_module(f"mergetool.optim.{_PUBLIC[name]}"), name)
