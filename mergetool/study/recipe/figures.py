"""The figures that a study asks for: metrics over a swept setting."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mergetool.errors import RecipeError, nearest
from mergetool.study.candidates.models import Strict


class Figure(Strict):
    """A picture of metrics over one swept setting, OUT/SETTING.png: one line a method.

    over: the setting, a key that candidates give a list of. metrics: ENTRY.METRIC, one panel each; without them the first
    of reward and tax. log: of the setting's axis; without it where its values span more than a decade.
    """

    over: str
    metrics: list[str] | None = Field(default=None, min_length=1, max_length=4)
    log: bool | None = None


def check_figures(figures: list[Figure], groups: list[dict[str, Any]], columns: list[str]) -> None:
    """Whether each figure can be drawn.

    Args:
        figures: of a study.
        groups: settings of the study's candidates.
        columns: names of its metrics.

    Raises:
        RecipeError: a setting that nothing sweeps, or a metric that the study does not take.
    """
    settings = [figure.over for figure in figures]
    if twice := next((setting for setting in settings if settings.count(setting) > 1), None):
        raise RecipeError(f"figure: two figures over '{twice}'", "give one of them all the metrics")
    swept = {key for settings in groups for key in settings}
    for figure in figures:
        if figure.over not in swept:
            hint = nearest(figure.over, swept) if swept else "give a candidate a list of values"
            raise RecipeError(f"figure.over: no candidate sweeps '{figure.over}'", hint)
        for name in figure.metrics or []:
            if name not in columns:
                raise RecipeError(f"figure.metrics: no metric is called '{name}'", nearest(name, columns))
