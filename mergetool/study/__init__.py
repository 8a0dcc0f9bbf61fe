"""Many candidates through the same metrics: chosen on validation rows, reported on test rows.

candidates/  what a candidate is: one class for each kind, and the table of them
recipe/      the study language, read strictly; entries to candidates; what can be checked without weights
analysis/    lines of results to groups, the Pareto front, the choice and the hypervolume
execution/   every candidate that results.jsonl lacks, made and measured, here or by workers
report/      pareto.png, KNOB.png, report.html, and the scores of a model card
"""

from __future__ import annotations

import importlib

_PUBLIC = {
    "StudyRecipe": "mergetool.study.recipe.study_recipe",
    "load_study_recipe": "mergetool.study.recipe.study_recipe",
    "check_study": "mergetool.study.recipe.check",
    "run_study": "mergetool.study.execution.run",
    "StudyResult": "mergetool.study.execution.run",
    "summarise": "mergetool.study.analysis.choose",
    "write_outputs": "mergetool.study.report.outputs",
    "save": "mergetool.study.execution.save",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mergetool.study' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
