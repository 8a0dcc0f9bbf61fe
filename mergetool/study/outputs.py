"""What a study leaves beside results.jsonl: pareto.png and report.html."""

from __future__ import annotations

from pathlib import Path

from mergetool.study.recipe import StudyRecipe
from mergetool.study.run import RESULTS, StudyResult


def write_outputs(recipe: StudyRecipe, result: StudyResult) -> list[Path]:
    """Draws the picture and writes the report; returns the paths of all that a study leaves."""
    from mergetool.study.picture import draw_pareto
    from mergetool.study.report import write_report

    picture = draw_pareto(result.summary, result.out / "pareto.png", recipe.name)
    report = write_report(result.summary, result.rows, picture, result.out / "report.html", recipe.name)
    return [result.out / RESULTS, picture, report]
