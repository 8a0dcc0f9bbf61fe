"""report.html: one self-contained file that can be sent to somebody."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergetool import reading
from mergetool.evaluate.paired import DRAWS
from mergetool.study.analysis.choose import Summary
from mergetool.study.analysis.doubts import shown as told
from mergetool.study.analysis.groups import Group, Score
from mergetool.study.analysis.hypervolume import Cover, covers
from mergetool.study.recipe.columns import SPLITS, Column
from mergetool.study.report.choice_words import certainty, compared_with, difference_rows
from mergetool.study.report.front_svg import front_svg
from mergetool.study.report.reader import compared_sentence, glossary, next_steps
from mergetool.version import __version__

TEMPLATE = Path(__file__).with_name("report.html.jinja")


def shown(score: Score) -> str:
    """A score as a table has it: mean ± standard deviation over seeds, or the value alone."""
    return f"{score.mean:.3f} ± {score.sd:.3f}" if score.sd is not None else f"{score.mean:.3f}"


def write_report(
    summary: Summary,
    rows: list[dict[str, Any]],
    picture: Path,
    curves: list[Path],
    path: Path,
    title: str,
    notes: Sequence[str] = (),
) -> Path:
    """Writes the report.

    Args:
        summary: of the study.
        rows: lines of results, failed candidates among them.
        picture: the PNG that is embedded; curves: more of them.
        path: of the HTML file.
        title: the study's name.
        notes: sentences on how the candidates came about.

    Returns:
        `path`.
    """
    import jinja2
    import yaml

    from mergetool.study.analysis.categories import by_category
    from mergetool.study.report.style import colours

    look = {family: colour for family, (colour, _) in colours(summary).items()}
    by_name = {row["name"]: row for row in rows}
    groups = []
    for group in summary.groups:
        recipes = [(name, _recipe_text(by_name[name], yaml)) for name in group.members]
        groups.append(
            {
                "name": group.name,
                "family": group.family,
                "colour": look.get(group.family, "#000000"),
                "seeds": len(group.members),
                "chosen": group.name == summary.choice.group,
                "front": group.name in summary.front,
                "rlhf": group.name == summary.rlhf,
                "recipes": recipes,
                "note": group.remark,
                "cells": [_cell(group, column, split) for split in reversed(SPLITS) for column in summary.columns],
            }
        )
    chosen = summary.group(summary.choice.group) if summary.choice.group else None
    page = (
        jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(reading.text(TEMPLATE))
        .render(
            title=title,
            notes=notes,
            certainty=certainty(summary),
            glossary=glossary(summary),
            compared=compared_sentence(summary, rows),
            next_steps=next_steps(summary, path.parent),
            differences=_differences(summary),
            difference_heads=_heads(summary),
            against=summary.against,
            draws=f"{DRAWS:,}",
            version=__version__,
            columns=summary.columns,
            groups=groups,
            choice=summary.choice,
            splits=[("test", "test rows: reported"), ("validation", "validation rows: chosen on")],
            picture=_embedded(picture),
            svg=front_svg(summary),
            curves=[(curve.stem, _embedded(curve)) for curve in curves],
            covers=[_cover(cover, look) for cover in covers(summary)],
            categories=by_category(summary, rows),
            reward=summary.reward,
            tax=summary.tax,
            chosen=_against_models(summary, chosen) if chosen else [],
            families=_families(summary, look),
            tax_paid=tax_sentence(summary),
            failed=[row for row in rows if row.get("error")],
        )
    )
    path.write_text(page, encoding="utf-8")
    return path


def _heads(summary: Summary) -> list[dict[str, str]]:
    """The columns of the table of differences."""
    return [
        {"what": title, "column": column.name, "better": "up" if column.metric.higher_is_better else "down"}
        for _, title, columns in compared_with(summary)
        for column in columns
    ]


def _differences(summary: Summary) -> list[dict[str, Any]]:
    """Its rows; empty where no row scores are there."""
    return [
        {
            "name": name,
            "chosen": name == summary.choice.group,
            "cells": [
                {"text": told(away), "value": away.mean, "apart": away.is_clear} if away else {"text": "", "value": ""}
                for away in cells
            ],
        }
        for name, cells in difference_rows(summary)
    ]


def tax_sentence(summary: Summary, split: str = "test") -> str:
    """What alignment costs, in one sentence with its numbers."""
    sft, rlhf = summary.group("sft"), summary.group(summary.rlhf or "")
    if sft is None or rlhf is None:
        return "The study has no RLHF model, so there is no tax to state."
    parts = []
    for column in (summary.reward, summary.tax):
        before, after = sft.scores[split][column.name], rlhf.scores[split][column.name]
        change = f"{after.mean - before.mean:+.3f}"
        parts.append(f"{column.name} from {shown(before)} to {shown(after)} ({change})")
    if len(rlhf.members) == 1:
        return f"{rlhf.name} against sft on the {split} rows: {parts[0]}, {parts[1]}."
    each = ", ".join(f"{value:.3f}" for value in sorted(rlhf.scores[split][summary.tax.name].values))
    return (
        f"{rlhf.name} against sft on the {split} rows over {len(rlhf.members)} seeds: {parts[0]}, {parts[1]}; "
        f"seed by seed {each}."
    )


def _cell(group: Group, column: Column, split: str) -> dict[str, Any]:
    score = group.scores[split][column.name]
    return {"text": shown(score), "value": score.mean, "hint": f"95 % over {score.n} rows: {score.low:.3f} to {score.high:.3f}"}


def _against_models(summary: Summary, chosen: Group) -> list[dict[str, Any]]:
    """The choice beside SFT and RLHF on the test rows."""
    found = []
    for name in ("sft", summary.rlhf, chosen.name):
        group = summary.group(name) if name else None
        if group and group.name not in [one["name"] for one in found]:
            found.append(
                {
                    "name": group.name,
                    "chosen": group is chosen,
                    "cells": [_cell(group, column, "test") for column in summary.columns],
                }
            )
    return found


def _families(summary: Summary, look: dict[str, str]) -> list[dict[str, Any]]:
    """The rule's choice within each family, with its test scores."""
    found = []
    for family, name in summary.choice.by_family.items():
        group = summary.group(name) if name else None
        found.append(
            {
                "family": family,
                "colour": look.get(family, "#000000"),
                "name": name,
                "cells": [_cell(group, column, "test") for column in summary.columns] if group else [],
            }
        )
    return found


def _recipe_text(row: dict[str, Any], yaml: Any) -> str:
    if row.get("learned"):
        return "# ratios learned by `mergetool ama`\n" + yaml.safe_dump(row["learned"], sort_keys=False, allow_unicode=True)
    return yaml.safe_dump(row["recipe"], sort_keys=False, allow_unicode=True) if row.get("recipe") else ""


def _embedded(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode()


def _cover(cover: Cover, look: dict[str, str]) -> dict[str, Any]:
    share = cover.share
    return {
        "family": cover.family or "all together",
        "colour": look.get(cover.family, "#888888"),
        "points": cover.points,
        "area": f"{cover.area:.4g}",
        "share": "none" if share is None else f"{share:.1%}" + (f" ± {100 * cover.sd:.1f}" if cover.sd is not None else ""),
        "value": cover.area,
    }
