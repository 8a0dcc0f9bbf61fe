"""What a study leaves beside results.jsonl: pareto.png, the recipe's own figures, and report.html."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mergetool.study.execution.results import RESULTS
from mergetool.study.execution.run import StudyResult
from mergetool.study.recipe.study_recipe import StudyRecipe


def write_outputs(recipe: StudyRecipe, result: StudyResult, notes: Sequence[str] = ()) -> list[Path]:
    """Draws the pictures and writes the report; returns the paths of all that a study leaves.

    Args:
        notes: sentences for the report's reader, on how the candidates came about.
    """
    from mergetool.study.report.html_report import write_report
    from mergetool.study.report.pareto_picture import draw_pareto
    from mergetool.study.report.setting_curves import draw_curve

    summary, out = result.summary, result.out
    picture = draw_pareto(summary, out / "pareto.png", recipe.name)
    curves = [
        draw_curve(summary, figure, out / f"{figure.over}.png", recipe.name)
        for figure in recipe.figure
        if any(figure.over in group.settings for group in summary.groups)  # else all of them failed
    ]
    report = write_report(summary, result.rows, picture, curves, out / "report.html", recipe.name, notes)
    return [out / RESULTS, picture, *curves, report]
