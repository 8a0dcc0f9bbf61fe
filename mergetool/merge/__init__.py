"""Offline merging: recipe -> plan -> stream. ``mergetool.merge(recipe, out)`` is all three; see run.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergetool.exports import lazy, make_callable

if TYPE_CHECKING:
    from mergetool.merge.engine import merge_tensors, merge_to_directories, merge_to_directory
    from mergetool.merge.plan import Plan
    from mergetool.merge.planner import plan_merge
    from mergetool.merge.recipe import MergeRecipe, load_merge_recipe, merge_recipe
    from mergetool.merge.run import merge
    from mergetool.methods import METHODS

_LAZY = {
    "METHODS": "mergetool.methods",
    "MergeRecipe": "mergetool.merge.recipe",
    "Plan": "mergetool.merge.plan",
    "load_merge_recipe": "mergetool.merge.recipe",
    "merge": "mergetool.merge.run",
    "merge_recipe": "mergetool.merge.recipe",
    "merge_tensors": "mergetool.merge.engine",
    "merge_to_directories": "mergetool.merge.engine",
    "merge_to_directory": "mergetool.merge.engine",
    "plan_merge": "mergetool.merge.planner",
}
__all__ = [
    "METHODS",
    "MergeRecipe",
    "Plan",
    "load_merge_recipe",
    "merge",
    "merge_recipe",
    "merge_tensors",
    "merge_to_directories",
    "merge_to_directory",
    "plan_merge",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _LAZY)
make_callable(__name__)
