"""Many candidates through the same metrics: chosen on validation rows, reported on test rows.

candidates/  what a candidate is: one class for each kind, and the table of them
recipe/      the study language, read strictly; entries to candidates; what can be checked without weights
analysis/    lines of results to groups, differences row by row, the Pareto front, the choice and the hypervolume
execution/   every candidate that results.jsonl lacks, made and measured, here or by workers
pick/        a study made of models and tasks, cut to a time, its choice written
report/      pareto.png, SETTING.png, report.html, and the scores of a model card
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergetool.exports import lazy

if TYPE_CHECKING:
    from mergetool.study.analysis.choose import summarise
    from mergetool.study.execution.run import StudyResult, run_study
    from mergetool.study.execution.save import save
    from mergetool.study.recipe.check import check_study
    from mergetool.study.recipe.study_recipe import StudyRecipe, load_study_recipe
    from mergetool.study.report.outputs import write_outputs

_LAZY = {
    "StudyRecipe": "mergetool.study.recipe.study_recipe",
    "StudyResult": "mergetool.study.execution.run",
    "check_study": "mergetool.study.recipe.check",
    "load_study_recipe": "mergetool.study.recipe.study_recipe",
    "run_study": "mergetool.study.execution.run",
    "save": "mergetool.study.execution.save",
    "summarise": "mergetool.study.analysis.choose",
    "write_outputs": "mergetool.study.report.outputs",
}
__all__ = [
    "StudyRecipe",
    "StudyResult",
    "check_study",
    "load_study_recipe",
    "run_study",
    "save",
    "summarise",
    "write_outputs",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _LAZY)
