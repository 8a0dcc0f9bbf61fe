"""How sure a choice is, in sentences: for the terminal, the report and a notebook."""

from __future__ import annotations

from typing import Any

from mergetool.evaluate.paired import Difference
from mergetool.study.analysis.choose import Summary
from mergetool.study.analysis.doubts import shown
from mergetool.study.recipe.columns import Column

_NAMED = 6


def chosen_sentence(summary: Summary) -> str:
    """What was chosen and by which rule."""
    choice = summary.choice
    return f"Chosen: {choice.group}: {choice.why}." if choice.group else f"Nothing chosen: {choice.why}."


def certainty(summary: Summary) -> list[str]:
    """The runner-up, what cannot be told apart from the choice, and how many rows would tell; empty without row scores."""
    choice, away = summary.choice, summary.choice.away
    if choice.group is None or choice.runner_up is None or away is None:
        return [missing_rows(summary)] if summary.without_rows else []
    what = f"{choice.group} less it in {choice.of}, on {away.rows} validation rows: {shown(away)}"
    said = [f"Runner-up: {choice.runner_up}. {what}"]
    if away.is_clear:
        said[0] += "."
    elif choice.rows_needed is None:
        said[0] += "; no number of rows like these would tell the two apart."
    else:
        said[0] += f"; about {_round(choice.rows_needed):,} rows would tell the two apart."
    if choice.tied:
        more = len(choice.tied) - _NAMED
        names = ", ".join(choice.tied[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        said.append(f"Cannot be told apart from it at 95 %: {names}.")
    else:
        said.append("All others that could have been chosen can be told apart from it at 95 %.")
    return said


def missing_rows(summary: Summary) -> str:
    """Why there are no intervals of differences."""
    count = len(summary.without_rows)
    return (
        f"{count} candidates were measured before scores were kept row by row, so the choice looks at means alone; remove "
        "results.jsonl and run again to measure them with rows (nothing is trained again)."
    )


def compared_with(summary: Summary) -> list[tuple[str, str, list[Column]]]:
    """What the table of differences holds each group against: (key of `Summary.differences`, title, columns).

    The axes alone; the front of `against` is at the group's own reward, so there is no difference in reward.
    """
    axes = [column for column in (summary.reward, summary.tax) if _is_anywhere(summary, column)]
    found = [("sft", "less sft", axes)]
    if summary.rlhf:
        found.append((summary.rlhf, f"less {summary.rlhf}", axes))
    if summary.against and summary.tax in axes:
        found.append((summary.against, f"less the {summary.against} front\nat its own {_short(summary.reward)}", [summary.tax]))
    return [one for one in found if any(one[0] in by for by in summary.differences.get("test", {}).values())]


def _is_anywhere(summary: Summary, column: Column) -> bool:
    by_group = summary.differences.get("test", {}).values()
    return any(column.name in by_column for others in by_group for by_column in others.values())


def _short(column: Column) -> str:
    return column.name.rpartition(".")[2].replace("_", " ")


def difference_rows(summary: Summary) -> list[tuple[str, list[Difference | None]]]:
    """Group -> one difference for each column of `compared_with`, on the test rows; groups without any are left out."""
    wanted = [(key, column.name) for key, _, columns in compared_with(summary) for column in columns]
    found = []
    for group in summary.groups:
        others = summary.differences.get("test", {}).get(group.name, {})
        cells = [others.get(key, {}).get(name) for key, name in wanted]
        if any(cells):
            found.append((group.name, cells))
    return found


def differences_as_facts(summary: Summary) -> dict[str, Any]:
    """Every difference as plain values: split -> group -> what it is compared with -> column."""
    from dataclasses import asdict

    return {
        split: {
            group: {other: {name: asdict(away) for name, away in by_column.items()} for other, by_column in others.items()}
            for group, others in compared.items()
        }
        for split, compared in summary.differences.items()
    }


def _round(count: int) -> int:
    """In two digits: it is an estimate."""
    digits = max(0, len(str(count)) - 2)
    return round(count, -digits)
