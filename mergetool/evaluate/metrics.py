"""The table of metrics. A metric is a row here, not a class: two numbers per data row, and their ratio.

Each metric turns one pass over the model (`needs`) into a numerator and a denominator per row; its value is
sum(numerators) / sum(denominators), so a share of rows, a mean over rows and a mean over tokens are one formula,
and one bootstrap serves all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from mergetool.errors import RecipeError, nearest


@dataclass(frozen=True)
class Metric:
    """What one number means.

    Attributes:
        name: as a recipe writes it.
        side: "reward" (what alignment should raise) or "tax" (what it should not cost).
        unit: of the value.
        higher_is_better: which way is better.
        needs: the pass that feeds it: "pair_margins" (preference rows and the reference's log-probabilities),
            "completion_nll" (completion rows) or "greedy_hits" (completion rows, generation).
        short: a title for an axis or a column.
        about: one line for the docs.
    """

    name: str
    side: str
    unit: str
    higher_is_better: bool
    needs: str
    short: str
    about: str

    @property
    def rows(self) -> str:
        """The kind of data rows: "preferences" or "completions"."""
        return "preferences" if self.needs == "pair_margins" else "completions"


_ROWS = (
    Metric(
        "preference_accuracy",
        "reward",
        "share of pairs",
        True,
        "pair_margins",
        "preference accuracy",
        "share of pairs whose chosen side has the larger implicit reward; a tie counts one half",
    ),
    Metric(
        "reward_margin",
        "reward",
        "nats",
        True,
        "pair_margins",
        "reward margin",
        "mean over pairs of beta * [log(pi/ref)(chosen) - log(pi/ref)(rejected)]",
    ),
    Metric(
        "nll",
        "tax",
        "nats/token",
        False,
        "completion_nll",
        "negative log-likelihood",
        "negative log-likelihood of the held-out completions, per completion token",
    ),
    Metric(
        "exact_match",
        "tax",
        "share of rows",
        True,
        "greedy_hits",
        "exact match",
        "share of greedy answers equal to the reference answer after normalisation",
    ),
)
METRICS = MappingProxyType({row.name: row for row in _ROWS})


def metric(name: str, where: str = "metric") -> Metric:
    """The row called `name`.

    Raises:
        RecipeError: there is no such metric; the message names the nearest one.
    """
    if name not in METRICS:
        raise RecipeError(f"{where}: unknown metric '{name}'", nearest(name, METRICS))
    return METRICS[name]
