"""The online operators, one file each: what they keep of Δ and τ_s, and how they combine it.

Their protocol is `mergetool.optim.job.Operator`; their rows are `mergetool.methods.ONLINE`. What an operator shares with
its offline partner stands in `mergetool.ops`: masks, thresholds, sums and sign elections.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from mergetool.optim.job import Operator


@cache
def operator(name: str) -> Operator:
    """The operator of the file `name`.py in this directory."""
    return import_module(f"{__name__}.{name}").OPERATOR
