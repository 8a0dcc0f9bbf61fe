"""From lines of results to an answer: groups, the Pareto front, the choice, and how sure it is.

The choice is made on validation rows, see `rule`. What the test rows say of it is reported and decides nothing. The front is
drawn on the test rows: it describes, it does not choose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mergetool.study.analysis.differences import Compared, Differences, compare_all, pareto
from mergetool.study.analysis.doubts import doubts
from mergetool.study.analysis.groups import Group, good, groups_of
from mergetool.study.analysis.row_scores import RowScores
from mergetool.study.analysis.rule import Choice, choose, rule_of
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.rlhf import rlhf_group
from mergetool.study.recipe.columns import SPLITS, Column, axes, columns, first_of_each
from mergetool.study.recipe.study_recipe import StudyRecipe

__all__ = ["Summary", "pareto", "summarise"]


@dataclass(frozen=True)
class Summary:
    """A study's outcome: `groups` in the study's order, and names into them.

    Attributes:
        differences: split -> group -> "sft", the RLHF group or `against` -> column -> the difference, see `compare_all`.
        against: the family whose front others are held against.
        without_rows: candidates that were measured before scores were kept row by row; they have no differences.
    """

    columns: list[Column]
    reward: Column
    tax: Column
    groups: list[Group]
    front: list[str]
    choice: Choice
    rlhf: str | None
    differences: dict[str, Compared] = field(default_factory=dict, repr=False)
    against: str = ""
    without_rows: list[str] = field(default_factory=list, repr=False)

    def group(self, name: str) -> Group | None:
        return next((one for one in self.groups if one.name == name), None)

    def tax_paid(self, split: str = "test") -> tuple[float, float | None] | None:
        """How much worse RLHF is than SFT on the tax axis: (difference, its spread over seeds); more is worse."""
        sft, rlhf = self.group("sft"), self.group(self.rlhf or "")
        if sft is None or rlhf is None:
            return None
        before, after = sft.scores[split][self.tax.name], rlhf.scores[split][self.tax.name]
        return good(self.tax, before.mean) - good(self.tax, after.mean), after.sd


def summarise(
    recipe: StudyRecipe,
    candidates: list[Candidate],
    rows: list[dict[str, Any]],
    row_scores: Mapping[str, RowScores] | None = None,
) -> Summary:
    """Groups, front, differences and choice of the lines of results; candidates that failed are left out.

    Args:
        rows: one line per candidate, in the same order.
        row_scores: candidate -> its scores row by row. Without them the choice looks at means alone.
    """
    named = columns(recipe)
    reward, tax = axes(recipe)
    groups = groups_of(candidates, rows, named)
    rlhf = rlhf_group(recipe, candidates)
    front = pareto(
        [
            (one.name, good(reward, one.scores["test"][reward.name].mean), good(tax, one.scores["test"][tax.name].mean))
            for one in groups
        ]
    )
    found = Differences(groups, named, row_scores or {})
    weighed = first_of_each(recipe) if recipe.select.weighs_all else [reward, tax]
    rule = rule_of(recipe, groups, weighed, rlhf, found)
    choice = choose(rule, groups)
    said = doubts(choice, rule, groups, weighed, rlhf, recipe.select.keep_reward, found)
    against = recipe.against if any(one.family == recipe.against for one in groups) else ""
    return Summary(
        named,
        reward,
        tax,
        groups,
        front,
        replace(choice, warnings=said),
        rlhf,
        {split: compare_all(found, groups, named, (reward, tax), rlhf, against, split) for split in SPLITS},
        against,
        found.without_rows(),
    )
