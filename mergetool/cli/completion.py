"""Values that the shell completes: each function gives the names that open with what is typed.

A shell waits for the answer, so nothing here imports torch.
"""

from __future__ import annotations

ENGINES = ("auto", "native", "mergekit")
"""What may run a merge: the engine that can, ours, or mergekit's."""


def _that_open(with_: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(with_)]


def recipe_names(incomplete: str) -> list[str]:
    """kind/name of every recipe of the package."""
    from mergetool.config.packaged import list_recipes

    return _that_open(incomplete, [f"{kind}/{name}" for kind, name in list_recipes()])


def recipe_kinds(incomplete: str) -> list[str]:
    """The languages of recipes."""
    from mergetool.config.packaged import KINDS

    return _that_open(incomplete, list(KINDS))


def engines(incomplete: str) -> list[str]:
    """What may merge."""
    return _that_open(incomplete, list(ENGINES))


def metric_names(incomplete: str) -> list[str]:
    """Metrics and suites, also behind a comma: ``--tasks nll,exa`` completes to ``nll,exact_match``."""
    from mergetool.evaluate import METRICS, SUITES

    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in _that_open(last, [*METRICS, *SUITES])]
