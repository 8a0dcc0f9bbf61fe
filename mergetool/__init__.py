"""mergetool: offline and online merging of base, SFT and RLHF checkpoints on one reward–tax front.

Public names load lazily, so that ``import mergetool`` (and ``mergetool --help``) costs nothing. ``merge``, ``align`` and
``evaluate`` are packages that can be called: ``mergetool.merge(recipe, out)``, and ``from mergetool.merge import plan_merge``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergetool.exports import lazy
from mergetool.version import __version__

if TYPE_CHECKING:
    from mergetool.activations.run import calibrate
    from mergetool.align.run import align
    from mergetool.errors import MergetoolError
    from mergetool.evaluate.run import evaluate
    from mergetool.merge.inspection import inspect
    from mergetool.merge.run import merge
    from mergetool.optim import OnDARE, OnLinear, OnlineMerge, OnNullSpace, OnTIES, Reference
    from mergetool.recipe_kinds import check
    from mergetool.study.compare import compare
    from mergetool.study.pick.pick import pick

_LAZY = {
    "MergetoolError": "mergetool.errors",
    "OnDARE": "mergetool.optim",
    "OnLinear": "mergetool.optim",
    "OnNullSpace": "mergetool.optim",
    "OnTIES": "mergetool.optim",
    "OnlineMerge": "mergetool.optim",
    "Reference": "mergetool.optim",
    "align": "mergetool.align",
    "calibrate": "mergetool.activations",
    "check": "mergetool.recipe_kinds",
    "compare": "mergetool.study.compare",
    "evaluate": "mergetool.evaluate",
    "inspect": "mergetool.merge.inspection",
    "merge": "mergetool.merge",
    "pick": "mergetool.study.pick.pick",
}
__all__ = [
    "MergetoolError",
    "OnDARE",
    "OnLinear",
    "OnNullSpace",
    "OnTIES",
    "OnlineMerge",
    "Reference",
    "__version__",
    "align",
    "calibrate",
    "check",
    "compare",
    "evaluate",
    "inspect",
    "merge",
    "pick",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _LAZY)
