"""A study in one call: checked, run, drawn and reported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mergetool.config.given import recipe_given
from mergetool.study.execution.run import StudyResult, run_study
from mergetool.study.execution.scheduler import Progress
from mergetool.study.recipe.check import check_study
from mergetool.study.recipe.study_recipe import StudyRecipe, load_study_recipe, make_study
from mergetool.study.report.outputs import write_outputs


def compare(
    recipe: StudyRecipe | Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    fresh: bool = False,
    progress: Progress | None = None,
    device: str | None = None,
    dtype: str | None = None,
    workers: int | None = None,
    ray: str | None = None,
) -> StudyResult:
    """Merges, trains and measures every candidate of a study, as ``mergetool compare`` does.

    Args:
        recipe: a study as a YAML file's path, as plain values (relative paths then start from the working directory), or
            read already.
        out: directory for results.jsonl, pareto.png and report.html; what is in it already is not done again.
        fresh: train and measure everything anew.
        progress: told (candidates done, candidates in all, what is being done).
        device, dtype: of the model that is measured; None: a GPU where there is one, float32 on a CPU.
        workers: candidates at a time, each in a process with a model of its own. None: one, or one for each GPU or node of
            a Ray cluster.
        ray: address of a Ray cluster: "local", "auto" or HOST:PORT.

    Returns:
        Rows of scores, groups, front and choice. Candidates that could not be made are in its `failures`.

    Raises:
        MergetoolError: the study itself cannot be run: its recipe, the SFT model, the data or the output directory.
    """
    read = recipe_given(recipe, StudyRecipe, load_study_recipe, make_study)
    check_study(read)  # a misspelt method should not show after an hour of training
    result = run_study(read, out, fresh, progress, device, dtype, workers, ray)
    write_outputs(read, result)
    return result
