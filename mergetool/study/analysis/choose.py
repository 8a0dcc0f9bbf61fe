"""From lines of results to an answer: seeds to mean and spread, the Pareto front, and the rule that chooses.

The rule: of all groups whose reward on the validation rows keeps at least `keep_reward` of what RLHF gained over SFT,
take the one with the best tax metric there; equal ones by reward. What the test rows say of it is reported and
decides nothing. The front is drawn on the test rows: it describes, it does not choose.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.rlhf import rlhf_group
from mergetool.study.recipe.columns import SPLITS, Column, axes, columns
from mergetool.study.recipe.study_recipe import StudyRecipe


@dataclass(frozen=True)
class Score:
    """One metric of one group.

    Attributes:
        mean: over seeds, in the metric's unit.
        sd: sample standard deviation over seeds; None for one seed.
        low, high: 95 % bootstrap interval over rows, averaged over seeds.
        n: rows.
        values: one per seed.
    """

    mean: float
    sd: float | None
    low: float
    high: float
    n: int
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Group:
    """Candidates that differ in their seed alone.

    Attributes:
        name, family, settings: as of each member, see `Candidate`.
        members: names of the candidates.
        scores: split -> metric -> score.
        part_of: the group of the training that this is an earlier state of.
        trial: whether a search proposed it.
        is_model: whether it is one of the study's own models, see `Candidate`.
        remark: what the recipe alone does not say.
    """

    name: str
    family: str
    settings: dict[str, Any]
    members: tuple[str, ...]
    scores: dict[str, dict[str, Score]] = field(repr=False)
    part_of: str | None = None
    trial: bool = False
    is_model: bool = False
    remark: str = ""


@dataclass(frozen=True)
class Choice:
    """What the rule took.

    Attributes:
        group: None where no group keeps enough reward.
        needed: reward on the validation rows that a choice must reach, in the axis metric's unit.
        by_family: the same rule within each family; None where none of it keeps enough.
        why: one sentence.
    """

    group: str | None
    needed: float | None
    by_family: dict[str, str | None]
    why: str


@dataclass(frozen=True)
class Summary:
    """A study's outcome: `groups` in the study's order, and names into them."""

    columns: list[Column]
    reward: Column
    tax: Column
    groups: list[Group]
    front: list[str]
    choice: Choice
    rlhf: str | None

    def group(self, name: str) -> Group | None:
        return next((one for one in self.groups if one.name == name), None)

    def tax_paid(self, split: str = "test") -> tuple[float, float | None] | None:
        """How much worse RLHF is than SFT on the tax axis: (difference, its spread over seeds); more is worse."""
        sft, rlhf = self.group("sft"), self.group(self.rlhf or "")
        if sft is None or rlhf is None:
            return None
        before, after = sft.scores[split][self.tax.name], rlhf.scores[split][self.tax.name]
        return good(self.tax, before.mean) - good(self.tax, after.mean), after.sd


def good(column: Column, value: float) -> float:
    """A metric's value turned so that more is better."""
    return value if column.metric.higher_is_better else -value


def summarise(recipe: StudyRecipe, candidates: list[Candidate], rows: list[dict[str, Any]]) -> Summary:
    """Groups, front and choice of the lines of results; candidates that failed are left out.

    Args:
        rows: one line per candidate, in the same order.
    """
    named = columns(recipe)
    reward, tax = axes(recipe)
    members: dict[str, list[tuple[Candidate, dict]]] = {}
    for candidate, row in zip(candidates, rows, strict=True):
        if not row.get("error"):
            members.setdefault(candidate.group, []).append((candidate, row))
    groups = [_group(name, found, named) for name, found in members.items()]
    rlhf = rlhf_group(recipe, candidates)
    front = pareto(
        [
            (one.name, good(reward, one.scores["test"][reward.name].mean), good(tax, one.scores["test"][tax.name].mean))
            for one in groups
        ]
    )
    return Summary(named, reward, tax, groups, front, _choose(recipe, groups, reward, tax, rlhf), rlhf)


def _group(name: str, found: list[tuple[Candidate, dict]], named: list[Column]) -> Group:
    first = found[0][0]
    scores = {
        split: {column.name: _score([row["scores"][split][column.name] for _, row in found]) for column in named}
        for split in SPLITS
    }
    return Group(
        name,
        first.family,
        first.settings,
        tuple(one.name for one, _ in found),
        scores,
        first.part_of,
        first.trial is not None,
        first.is_model,
        first.remark,
    )


def _score(values: list[dict[str, Any]]) -> Score:
    means = [one["value"] for one in values]
    return Score(
        statistics.fmean(means),
        statistics.stdev(means) if len(means) > 1 else None,
        statistics.fmean(one["low"] for one in values),
        statistics.fmean(one["high"] for one in values),
        values[0]["n"],
        tuple(means),
    )


def pareto(points: list[tuple[str, float, float]]) -> list[str]:
    """Names of the points that no other point beats, in order of the first coordinate; more is better in both."""
    front: list[str] = []
    best = float("-inf")
    for name, _, second in sorted(points, key=lambda point: (-point[1], -point[2])):
        if second > best:
            front.append(name)
            best = second
    return front[::-1]


def _choose(recipe: StudyRecipe, groups: list[Group], reward: Column, tax: Column, rlhf: str | None) -> Choice:
    def on_validation(group: Group, column: Column) -> float:
        return good(column, group.scores[recipe.select_on][column.name].mean)

    sft = next((one for one in groups if one.name == "sft"), None)
    aligned = next((one for one in groups if one.name == rlhf), None)
    families = list(dict.fromkeys(one.family for one in groups if one.name not in ("sft", "base")))
    if sft is None or aligned is None:
        return Choice(None, None, dict.fromkeys(families), "the study has no RLHF model to compare with")
    gain = on_validation(aligned, reward) - on_validation(sft, reward)
    if gain <= 0:
        return Choice(
            None, None, dict.fromkeys(families), f"{aligned.name} did not raise {reward.name} over sft on the validation rows"
        )
    needed = on_validation(sft, reward) + recipe.select.keep_reward * gain
    able = [one for one in groups if one.name not in ("sft", "base") and on_validation(one, reward) >= needed]

    def best(some: list[Group]) -> str | None:
        return max(some, key=lambda one: (on_validation(one, tax), on_validation(one, reward))).name if some else None

    by_family = {family: best([one for one in able if one.family == family]) for family in families}
    shown = needed if reward.metric.higher_is_better else -needed
    why = (
        f"best {tax.name} on the validation rows among the {len(able)} candidates that keep at least "
        f"{recipe.select.keep_reward:.0%} of the gain of {aligned.name} over sft in {reward.name} there"
    )
    return Choice(best(able), shown, by_family, why)
