"""The metrics on data rows: each file here but base.py is one metric, found by itself, so that adding one is adding a file."""

from __future__ import annotations

import importlib
import pkgutil
from types import MappingProxyType

from mergetool.errors import RecipeError, nearest
from mergetool.evaluate.metrics.base import Metric
from mergetool.evaluate.rows import ANY_ROWS

__all__ = ["METRICS", "Metric", "kind_of_rows", "metric"]


def _found() -> list[Metric]:
    names = [module.name for module in pkgutil.iter_modules(__path__) if module.name != "base"]
    rows = [importlib.import_module(f"{__name__}.{name}").METRIC for name in names]
    return sorted(rows, key=lambda row: (row.order, row.name))


METRICS = MappingProxyType({row.name: row for row in _found()})


def metric(name: str, where: str = "metric") -> Metric:
    """The row called `name`.

    Raises:
        RecipeError: there is no such metric; the message names the nearest one.
    """
    if name not in METRICS:
        raise RecipeError(f"{where}: unknown metric '{name}'", nearest(name, METRICS))
    return METRICS[name]


def kind_of_rows(names: tuple[str, ...] | list[str], where: str = "metrics") -> str:
    """The kind of data rows that serves all of these metrics: "preferences", "completions" or "prompts".

    Raises:
        RecipeError: no metric is named, one is unknown, or some want pairs and others completions.
    """
    kinds = {metric(name, where).rows for name in names}
    if not kinds:
        raise RecipeError(f"{where}: names no metric", "make one entry for each kind of data")
    own = kinds - {ANY_ROWS}
    if len(own) > 1:
        raise RecipeError(
            f"{where}: mixes metrics of preference pairs and of completions", "make one entry for each kind of data"
        )
    return (own or kinds).pop()
