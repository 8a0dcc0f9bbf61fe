"""Training with online merging: one YAML recipe, TRL's trainers, our optimizers."""

from __future__ import annotations

import importlib

from mergetool.align.recipe import AlignRecipe, Data, Merging, align_recipe, load_align_recipe, override

# What needs torch or TRL is imported when it is asked for: reading a recipe has to be quick.
_LAZY = {"check_align": "check", "align": "run", "AlignResult": "run"}

__all__ = [
    "AlignRecipe",
    "AlignResult",
    "Data",
    "Merging",
    "align",
    "align_recipe",
    "check_align",
    "load_align_recipe",
    "override",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'mergetool.align' has no attribute '{name}'")
    return getattr(importlib.import_module(f"mergetool.align.{_LAZY[name]}"), name)
