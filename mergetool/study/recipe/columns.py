"""The columns of a study's results: one for each metric of each entry; the first of each side is an axis."""

from __future__ import annotations

from dataclasses import dataclass

from mergetool.evaluate.metrics import METRICS, Metric
from mergetool.study.recipe.metric_entries import MetricEntry
from mergetool.study.recipe.study_recipe import StudyRecipe

SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Column:
    """One metric of one entry, as results name it: `skills.nll`."""

    name: str
    side: str
    metric: Metric


DISTANCE = Column(
    "weights.distance",
    "tax",
    Metric(
        name="distance",
        side="tax",
        unit="norm",
        higher_is_better=False,
        rows="weights",
        short="distance from SFT",
        about="norm of the weights' difference from the SFT model",
    ),
)
"""The second axis of a study that has one thing to be good at: no rows, no tax, but how much has changed."""


def columns(recipe: StudyRecipe) -> list[Column]:
    """Every metric of a study in the recipe's order; the first of each side is that side's axis.

    Raises:
        RecipeError: a public benchmark is not known, or lm-evaluation-harness is missing.
    """
    found = [
        Column(f"{entry.label}.{metric.name}", side, metric)
        for side in ("reward", "tax")
        for entry in recipe.on_axis(side)
        for metric in (recipe.harness_task(entry).metrics(side) if entry.tasks else [METRICS[name] for name in entry.metrics])
    ]
    return found if any(one.side == DISTANCE.side for one in found) else [*found, DISTANCE]


def axes(recipe: StudyRecipe) -> tuple[Column, Column]:
    """Reward and tax of the picture, the choice and a search: the first metric of each side."""
    named = columns(recipe)
    return next(one for one in named if one.side == "reward"), next(one for one in named if one.side == "tax")


def first_of_each(recipe: StudyRecipe) -> list[Column]:
    """The first metric of each entry."""
    named = columns(recipe)
    return [next(one for one in named if one.name.startswith(f"{entry.label}.")) for entry in entries(recipe)]


def entries(recipe: StudyRecipe) -> list[MetricEntry]:
    """The metric entries of both axes."""
    return [*recipe.on_axis("reward"), *recipe.on_axis("tax")]
