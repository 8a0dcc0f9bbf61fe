"""mergetool: offline and online merging of base, SFT and RLHF checkpoints on one reward–tax front.

Public names load lazily, so that ``import mergetool`` (and ``mergetool --help``) costs nothing.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "MergetoolError": "mergetool.errors",
    "OnDARE": "mergetool.optim",
    "OnTIES": "mergetool.optim",
    "OnlineMerge": "mergetool.optim",
    "Reference": "mergetool.optim",
    "merge": "mergetool.merge",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mergetool' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
