"""The rule that chooses, on validation rows alone.

Of all groups whose reward keeps at least `keep_reward` of what RLHF gained over SFT, those are looked at that cannot be told
from the best in the tax metric: whose paired difference from it is within one standard error. Of these the one nearest to
SFT in weights is taken: what the rows cannot tell apart is not worth a larger change. `rule: best` takes the best mean.

With `goal: all` every metric's share between the worst and the best input counts alike, nothing has to be kept, and of
what cannot be told from the best the one is taken that is nearest to the input which is best at none of the tasks: what
that one is there for is measured by none of them.

Source: Breiman et al. 1984, "Classification and Regression Trees", 3.4.3: the one-standard-error rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mergetool.evaluate.paired import Difference, rows_needed, turned
from mergetool.study.analysis.criterion import Criterion, MeanShare, OneMetric
from mergetool.study.analysis.differences import Differences
from mergetool.study.analysis.groups import Group, good
from mergetool.study.recipe.columns import Column
from mergetool.study.recipe.study_recipe import StudyRecipe


@dataclass(frozen=True)
class Choice:
    """What the rule took.

    Attributes:
        group: None where no group keeps enough reward.
        needed: reward on the validation rows that a choice must reach, in the axis metric's unit; None where nothing has to
            be kept.
        by_family: the same rule within each family; None where none of it keeps enough.
        why: one sentence.
        rule: that was followed: "best" where rows or distances are not there, whatever the recipe says.
        best: the group with the best mean.
        runner_up: the best one of the others that could have been chosen.
        of: what was looked at: the metric, or the mean share of several.
        away: the chosen less the runner-up in that, on the validation rows.
        rows_needed: validation rows that would tell these two apart; None where no number would.
        tied: groups that could have been chosen and that 95 % intervals cannot tell from the chosen.
        warnings: why it should not be relied on.
    """

    group: str | None
    needed: float | None
    by_family: dict[str, str | None]
    why: str
    rule: str = "best"
    best: str | None = None
    runner_up: str | None = None
    of: str = ""
    away: Difference | None = None
    rows_needed: int | None = None
    tied: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """A study's rule, once its groups are known.

    Attributes:
        criterion: what is maximised.
        pool: groups that may be chosen.
        near: the model that a choice should be near to, a key of `Group.distances`.
        follows: the recipe's `rule`.
        needed: as `Choice`.
        among: words for the pool.
    """

    criterion: Criterion
    pool: tuple[Group, ...]
    near: str
    follows: str
    needed: float | None
    among: str

    def pick(self, pool: Sequence[Group]) -> tuple[Group, Group, list[Group]] | None:
        """(chosen, the best mean, what cannot be told from that within one standard error); None of an empty pool."""
        if not pool:
            return None
        best = max(pool, key=self.criterion.value)
        if not self.follows_noise:
            return best, best, [best]
        level = [one for one in pool if one is best or self._is_level(best, one)]
        return min(level, key=lambda one: (one.distances[self.near], -self.criterion.value(one))), best, level

    @property
    def follows_noise(self) -> bool:
        """Whether rows and distances of the whole pool are there, and the recipe wants them."""
        able = all(self.near in one.distances and self.criterion.drawn(one) is not None for one in self.pool)
        return able and self.follows != BEST

    def _is_level(self, best: Group, other: Group) -> bool:
        away = self.criterion.between(best, other)
        return away is not None and away.mean <= away.se


BEST = "best"


def rule_of(recipe: StudyRecipe, groups: list[Group], axes: list[Column], rlhf: str | None, found: Differences) -> Rule | str:
    """The rule of a study, or why nothing can be chosen.

    Args:
        axes: reward and tax; with `goal: all` the first metric of each entry.
    """
    split, select = recipe.select_on, recipe.select
    sft = next((one for one in groups if one.name == "sft"), None)
    aligned = next((one for one in groups if one.name == rlhf), None)
    if sft is None or aligned is None:
        return "the study has no RLHF model to compare with"
    if select.weighs_all:
        inputs = [sft, aligned, *(one for one in groups if one.name in select.inputs)]
        criterion = MeanShare(axes, inputs, split, found, split)
        able = tuple(one for one in groups if one.name != "base")
        heads = {max(inputs, key=OneMetric(column, split, found).value).name for column in axes}
        idle = next((one.name for one in (sft, aligned) if one.name not in heads), "sft")
        return Rule(criterion, able, idle, select.rule, None, f"the {len(able)} models that were measured on all rows")
    reward, tax = axes

    def on_validation(group: Group) -> float:
        return good(reward, group.scores[split][reward.name].mean)

    gain = on_validation(aligned) - on_validation(sft)
    if gain <= 0:
        return f"{aligned.name} did not raise {reward.name} over sft on the validation rows"
    needed = on_validation(sft) + select.keep_reward * gain
    able = [one for one in groups if one.name not in ("sft", "base") and on_validation(one) >= needed]
    able.sort(key=on_validation, reverse=True)  # of equal ones the first is taken
    among = (
        f"the {len(able)} candidates that keep at least {select.keep_reward:.0%} of the gain of {aligned.name} over sft in "
        f"{reward.name} there"
    )
    return Rule(OneMetric(tax, split, found), tuple(able), "sft", select.rule, good(reward, needed), among)


def choose(rule: Rule | str, groups: Sequence[Group]) -> Choice:
    """Follows the rule, in all and within each family."""
    families = list(dict.fromkeys(one.family for one in groups if one.name not in ("sft", "base")))
    if isinstance(rule, str):
        return Choice(None, None, dict.fromkeys(families), rule)
    by_family: dict[str, str | None] = {}
    for family in families:
        taken = rule.pick([one for one in rule.pool if one.family == family])
        by_family[family] = taken[0].name if taken else None
    followed = rule.follows if rule.follows_noise else BEST
    taken = rule.pick(rule.pool)
    criterion = rule.criterion
    why = f"best {criterion.words} on the validation rows among {rule.among}"
    if taken is None:
        return Choice(None, rule.needed, by_family, why, followed)
    chosen, best, level = taken
    if len(level) > 1:
        why = (
            f"nearest to {rule.near} in weights of the {len(level)} within one standard error of the best {criterion.words} on "
            f"the validation rows ({best.name}), among {rule.among}"
        )
    others = [one for one in rule.pool if one is not chosen]
    found = Choice(chosen.name, rule.needed, by_family, why, followed, best.name, of=criterion.short)
    if not others:
        return found
    second = max(others, key=criterion.value)
    away = criterion.between(chosen, second)
    tied = tuple(one.name for one in others if (gap := criterion.between(chosen, one)) is not None and not gap.is_clear)
    found = replace(found, runner_up=second.name, tied=tied)
    return replace(found, away=turned(away, criterion.sign), rows_needed=rows_needed(away)) if away else found
