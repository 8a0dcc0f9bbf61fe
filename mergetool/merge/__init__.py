"""Offline merging: recipe -> plan -> stream."""

from __future__ import annotations

import importlib

_PUBLIC = {
    "MergeRecipe": "mergetool.merge.recipe",
    "load_merge_recipe": "mergetool.merge.recipe",
    "Plan": "mergetool.merge.plan",
    "plan_merge": "mergetool.merge.planner",
    "merge_tensors": "mergetool.merge.engine",
    "merge_to_directory": "mergetool.merge.engine",
    "merge_to_directories": "mergetool.merge.engine",
    "METHODS": "mergetool.methods",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mergetool.merge' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
