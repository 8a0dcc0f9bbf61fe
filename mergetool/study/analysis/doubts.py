"""Why a choice should not be relied on: too few rows, or test rows that contradict it. Nothing of this decides anything."""

from __future__ import annotations

from collections.abc import Sequence

from mergetool.evaluate.paired import Difference, combined, difference, least_seen
from mergetool.study.analysis.differences import Differences
from mergetool.study.analysis.groups import Group, good
from mergetool.study.analysis.rule import Choice, Rule
from mergetool.study.recipe.columns import Column

FEW = 50  # rows, or prompts that several rows share
_NAMED = 3


def doubts(
    choice: Choice,
    rule: Rule | str,
    groups: Sequence[Group],
    axes: Sequence[Column],
    rlhf: str | None,
    keep: float,
    found: Differences,
) -> tuple[str, ...]:
    """Warnings, one sentence each.

    Args:
        axes: what is traded, or all that counts.
        keep: the share of RLHF's gain that had to be kept.
    """
    said: list[str] = []
    for column in axes:
        if rlhf is not None and (away := found.between(rlhf, "sft", column.name, "validation")):
            said += _of_rows(away, column, rlhf)
    if choice.group is None or isinstance(rule, str):
        return tuple(said)
    said += _beaten_on_test(choice.group, groups, axes, found)
    if choice.runner_up is not None and rule.needed is not None:
        tax = axes[-1]
        away = found.between(choice.group, choice.runner_up, tax.name, "test")
        if away and away.is_clear and good(tax, away.mean) < 0:
            said.append(
                f"the test rows contradict the validation rows: there {choice.group} is worse than the runner-up "
                f"{choice.runner_up} in {tax.name}, {shown(away)}"
            )
        said += _keeps_less(choice.group, axes[0], rlhf, keep, found)
    return tuple(said)


def shown(away: Difference) -> str:
    """`+0.012 [-0.003, +0.027]`."""
    return f"{away.mean:+.3f} [{away.low:+.3f}, {away.high:+.3f}]"


def _of_rows(away: Difference, column: Column, rlhf: str) -> list[str]:
    said = []
    if away.clusters < FEW:
        apart = "" if away.clusters == away.rows else f" of {away.clusters} prompts or documents"
        said.append(
            f"{away.rows} rows{apart} are few to choose on: a difference in {column.name} below {least_seen(away):.3g} "
            f"({column.metric.unit}) is not seen"
        )
    if not away.is_clear:
        said.append(
            f"on the validation rows {rlhf} and sft cannot be told apart in {column.name}: {shown(away)}, {away.rows} rows"
        )
    return said


def _beaten_on_test(chosen: str, groups: Sequence[Group], axes: Sequence[Column], found: Differences) -> list[str]:
    """Whether others are better on the test rows in all that counts, beyond noise."""
    better = []
    for group in groups:
        gaps = [(column, found.between(group.name, chosen, column.name, "test")) for column in axes]
        if group.name not in (chosen, "base") and all(
            away is not None and away.is_clear and good(column, away.mean) > 0 for column, away in gaps
        ):
            better.append(group.name)
    if not better:
        return []
    names = ", ".join(better[:_NAMED]) + (f" and {len(better) - _NAMED} more" if len(better) > _NAMED else "")
    what = " and ".join(column.name for column in axes)
    return [f"the test rows contradict the validation rows: there {names} beat {chosen} in {what}, beyond the noise"]


def _keeps_less(chosen: str, reward: Column, rlhf: str | None, keep: float, found: Differences) -> list[str]:
    parts = [found.drawn(name, reward.name, "test") for name in (chosen, "sft", rlhf) if name]
    drawn = [part for part in parts if part is not None]
    if len(drawn) < 3:
        return []
    mine, sft, aligned = drawn
    away = difference(mine, combined([sft, aligned], [1 - keep, keep]))
    if not away.is_clear or good(reward, away.mean) > 0:
        return []
    return [
        f"on the test rows {chosen} keeps less than {keep:.0%} of the gain of {rlhf} over sft in {reward.name}, by "
        f"{shown(away)}"
    ]
