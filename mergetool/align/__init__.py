"""Training with online merging: one YAML recipe, TRL's trainers, our optimizers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergetool.exports import lazy, make_callable

if TYPE_CHECKING:
    from mergetool.align.check import check_align
    from mergetool.align.merging import Merging
    from mergetool.align.recipe import AlignRecipe, Data, align_recipe, load_align_recipe, override
    from mergetool.align.run import AlignResult, align

_LAZY = {
    "AlignRecipe": "mergetool.align.recipe",
    "AlignResult": "mergetool.align.run",
    "Data": "mergetool.align.recipe",
    "Merging": "mergetool.align.merging",
    "align": "mergetool.align.run",
    "align_recipe": "mergetool.align.recipe",
    "check_align": "mergetool.align.check",
    "load_align_recipe": "mergetool.align.recipe",
    "override": "mergetool.align.recipe",
}
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

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _LAZY)
make_callable(__name__)
