"""Everything that can be known about a study without weights: recipes, files, shapes, rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from mergetool.architecture.match import match
from mergetool.errors import MergetoolError
from mergetool.evaluate.harness.names import not_run
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.recipe.columns import columns, entries
from mergetool.study.recipe.expand import expand, probes
from mergetool.study.recipe.figures import check_figures
from mergetool.study.recipe.splits import read_tasks
from mergetool.study.recipe.study_recipe import StudyRecipe


def check_study(recipe: StudyRecipe) -> dict[str, Any]:
    """Checks a study from headers and data files alone.

    Returns:
        candidates, trainings and merges (how many), groups (names; candidates of one differ in the seed alone),
        searches (trials of each; they are not among the candidates), metrics (names), rows (per entry with data files:
        validation and test); where public benchmarks are asked for, benchmarks (their names) and not_run (by
        suite, what of it is left out and why).

    Raises:
        MergetoolError: the first thing that is wrong, in one line that names it.
    """
    candidates = expand(recipe)
    tried = probes(recipe)
    sources = recipe.sources()
    _one_architecture(sources["SFT"], [one.path for one in candidates if one.path is not None])
    # an RLHF model that is still to be trained has the shapes of the SFT model that it starts from
    models = {name: str(source) for name, source in {"RLHF": sources["SFT"], **sources}.items()}
    for candidate in candidates + tried:
        _check_recipe(candidate, models)
    _check_reward_models(recipe)
    tasks = read_tasks(recipe)
    settings = [one.settings for one in candidates + tried]
    check_figures(recipe.figure, settings, [one.name for one in columns(recipe)])
    searches = {entry.name: f"{entry.search.trials} trials" for entry in recipe.candidates if entry.search}
    rows = {one.name: {split: len(tasks[split][at].rows) for split in tasks} for at, one in enumerate(tasks["test"])}
    counted = Counter(one.counted for one in candidates)
    found = {
        "candidates": len(candidates),
        "trainings": counted["trainings"],
        "merges": counted["merges"],
        "groups": list(dict.fromkeys(one.group for one in candidates)),
        **({"searches": searches} if searches else {}),
        "metrics": [one.name for one in columns(recipe)],
        "rows": rows,
    }
    if benchmarks := [name for entry in entries(recipe) for name in entry.tasks]:
        found["benchmarks"] = benchmarks
        if left_out := not_run(benchmarks):
            found["not_run"] = left_out
    return found


def _check_reward_models(recipe: StudyRecipe) -> None:
    """Every reward model is one."""
    from mergetool.checkpoint.classifier import must_classify
    from mergetool.evaluate.reward_model import HINT
    from mergetool.hub.references import open_layout

    for entry in entries(recipe):
        if entry.reward_model:
            layout = open_layout(recipe.source(entry.reward_model))
            must_classify(layout, f"{entry.label}: reward_model", HINT, labels=1)


def _one_architecture(sft: Path | str, others: list[Path | str]) -> None:
    """Every checkpoint matches the SFT model."""
    from mergetool.checkpoint.in_form import in_form_of
    from mergetool.hub.references import open_layout

    ours = open_layout(sft)
    for other in dict.fromkeys(others):
        match([ours, in_form_of(open_layout(other), ours)])


def _check_recipe(candidate: Candidate, models: dict[str, str]) -> None:
    """The candidate's own recipe, by the room that will carry it out; its error names the candidate."""
    try:
        candidate.check({**dict.fromkeys(candidate.made_of, models["SFT"]), **models})
    except MergetoolError as error:
        raise type(error)(f"candidate '{candidate.name}': {error.message}", error.hint) from None
