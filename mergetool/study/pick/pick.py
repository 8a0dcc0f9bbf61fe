"""pick: models and tasks in, a chosen merge out, within a time."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergetool.errors import OutputError
from mergetool.fingerprints import digest
from mergetool.study.analysis.row_scores import RowColumns
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.execution.evaluator import Evaluator
from mergetool.study.execution.run import StudyResult, run_study
from mergetool.study.execution.scheduler import Progress
from mergetool.study.pick.budget import Plan, plan_for
from mergetool.study.pick.halving import FACTOR, Halving, Remembered, halve
from mergetool.study.pick.template import as_yaml, study_of
from mergetool.study.recipe.check import check_study
from mergetool.study.recipe.columns import first_of_each
from mergetool.study.recipe.study_recipe import StudyRecipe, make_study
from mergetool.study.report.outputs import write_outputs

MOST_ROWS = 500  # of each half, where nobody says: tokenised, and asked of the first model, before the time is known
HALVING, PLAN, STUDY, RECIPE, MODEL = "halving.jsonl", "plan.json", "study.yaml", "recipe.yaml", "model"
_PROBE = 8  # rows that say how long a row takes


@dataclass(frozen=True)
class Picked:
    """What pick found.

    Attributes:
        result: of the study of those that were measured on all rows.
        recipe: that study.
        plan: rows, and who was measured on how many.
        halving: who was dropped before; None where everything was measured.
        model: the checkpoint of the choice: written, or where the choice lies if it is one of the inputs; None where
            nothing was chosen.
        files: what was written.
        seconds: that it took.
    """

    result: StudyResult
    recipe: StudyRecipe
    plan: Plan
    halving: Halving | None
    model: Path | str | None
    files: list[Path]
    seconds: float


def pick(
    models: Sequence[str],
    tasks: Sequence[str],
    out: str | Path = "pick-out",
    *,
    base: str | None = None,
    stay: str | None = None,
    budget: float = 600.0,
    limit: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
) -> Picked:
    """Chooses a merge of two models or more, as ``mergetool pick`` does, and writes it.

    Args:
        models: directories, ``lab:NAME`` or Hub ids; the first is what a merge stays near to where nothing tells two apart.
        tasks: files of what must work, or benchmarks of lm-evaluation-harness, see `mergetool.study.pick.tasks`.
        out: directory for model/, recipe.yaml, study.yaml, report.html and results; what is in it is not done again.
        base: what the models were trained from; with it task vectors are sparsified and added.
        stay: rows whose outputs must stay as they are in the first model: null-space merging.
        budget: seconds. Rows and candidates are cut to it; it is a plan and no alarm.
        limit: rows of each half at most; None: MOST_ROWS.
        device, dtype: of the model that is measured; None: a GPU where there is one, float32 on a CPU.
        progress: told (candidates done, candidates in all, what is being done).

    Raises:
        MergetoolError: a model or a task cannot be used, or `out` holds something else.
    """
    began, out = time.monotonic(), Path(out)
    tell = progress or (lambda done, total, what: None)
    study = study_of(models, tasks, base, stay, Path.cwd(), limit or MOST_ROWS)
    recipe = make_study(study, "pick")
    facts = check_study(recipe)
    _must_be_ours(out)
    out.mkdir(parents=True, exist_ok=True)
    there = max((rows["validation"] for rows in facts["rows"].values()), default=limit or MOST_ROWS)
    # its model is gone when the study's is loaded
    plan, found, kept = _halved(recipe, Evaluator(recipe, out, device=device, dtype=dtype), there, budget, began, tell)
    study = _narrowed(study, plan.rows, kept) if found else _limited(study, plan.rows)
    recipe = make_study(study, "pick")
    result = run_study(recipe, out, progress=progress, device=device, dtype=dtype)
    return _written(models, tasks, out, recipe, study, result, plan, found, began)


def _halved(
    recipe: StudyRecipe, evaluator: Evaluator, there: int, budget: float, began: float, tell: Progress
) -> tuple[Plan, Halving | None, list[Candidate]]:
    """The plan, and where it has rungs, what halving found and the candidates that it left.

    Args:
        there: rows of a half.
        began: when the budget began to run.
    """
    inputs = ["sft", "rlhf", *recipe.select.inputs]
    by_name = {one.name: one for one in evaluator.candidates}
    rivals = [name for name in by_name if name not in (*inputs, "base")]
    keys = functools.cache(lambda name: evaluator.key(by_name[name]))
    measure = Remembered(evaluator.out / HALVING, _measure(evaluator, by_name), keys)

    def planned() -> Plan:
        tell(0, len(by_name), "how long a row takes")
        put, row = _times(inputs, measure)
        return plan_for(budget - (time.monotonic() - began), there, len(inputs), len(rivals), put, row)

    plan = _kept_plan(evaluator.out / PLAN, digest([sorted(map(keys, by_name)), budget]), planned)
    if not plan.rungs:
        return plan, None, []
    reserved = budget * (plan.last + len(inputs)) / (len(rivals) + len(inputs))
    total = sum(len(inputs) + max(plan.last, -(-len(rivals) // FACTOR**at)) for at in range(len(plan.rungs)))
    count = itertools.count()
    found = halve(
        inputs,
        rivals,
        first_of_each(recipe),
        plan.rungs,
        plan.last,
        measure,
        lambda: time.monotonic() - began > budget - reserved,
        lambda what: tell(min(next(count), total), total, what),
    )
    return plan, found, [by_name[name] for name in found.kept]


def _measure(evaluator: Evaluator, by_name: Mapping[str, Candidate]) -> Callable[..., dict[str, RowColumns]]:
    def measure(name: str, start: int, stop: int, before: Mapping[str, RowColumns] | None) -> dict[str, RowColumns]:
        weights = by_name[name].make(evaluator.workspace)
        return evaluator.bench.part(lambda live: weights.put(live, name), start, stop, before)

    return measure


def _times(inputs: list[str], measure: Remembered) -> tuple[float, float]:
    """Seconds to bring in weights, and for a row of every task: of the second model, for the first pays for the start."""
    measure(inputs[0], 0, _PROBE, None)
    times, before = [time.perf_counter()], None
    for start, stop in ((0, _PROBE), (_PROBE, 3 * _PROBE)):
        before = measure(inputs[1], start, stop, before)
        times.append(time.perf_counter())
    few, more = times[1] - times[0], times[2] - times[1]
    row = max((more - few) / _PROBE, more / (4 * _PROBE))
    return max(0.0, few - _PROBE * row), row


def _kept_plan(path: Path, key: str, make: Callable[[], Plan]) -> Plan:
    """The plan of an earlier call of the same pick, else a new one: a second call does what the first one would have done."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["key"] == key:
            return Plan(**kept["plan"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or cut short by a kill
    plan = make()
    path.write_text(json.dumps({"key": key, "plan": plan.written()}) + "\n", encoding="utf-8")
    return plan


def _limited(study: dict[str, Any], rows: int) -> dict[str, Any]:
    """The study with as many rows of each half."""
    sides = {side: [{**entry, "limit": rows} for entry in study[side]] for side in ("gain", "keep") if side in study}
    return {**study, **sides}


def _narrowed(study: dict[str, Any], rows: int, kept: Sequence[Candidate]) -> dict[str, Any]:
    """The study of those that halving left: each is its own exact recipe, beside further inputs."""
    lines = [line for line in study["candidates"] if "checkpoint" in line]
    lines += [{"name": one.name, "family": one.family, "recipe": one.recipe} for one in kept]
    return {**_limited(study, rows), "candidates": lines}


def _written(
    models: Sequence[str],
    tasks: Sequence[str],
    out: Path,
    recipe: StudyRecipe,
    study: dict[str, Any],
    result: StudyResult,
    plan: Plan,
    found: Halving | None,
    began: float,
) -> Picked:
    head = (
        f"mergetool compare {STUDY} OUT\n\nWhat mergetool pick measured on all rows: {' '.join(models)}, "
        f"for {' and '.join(tasks)}."
    )
    (out / STUDY).write_text(as_yaml(study, head), encoding="utf-8")
    files, model = [out / STUDY], None
    chosen = next((one for one in result.candidates if one.name == result.summary.choice.group), None)
    if chosen is not None:
        model, more = _model(chosen, recipe, out)
        files += more
    notes = halving_notes(plan, found)
    files += write_outputs(recipe, result, notes)
    return Picked(result, recipe, plan, found, model, files, time.monotonic() - began)


def halving_notes(plan: Plan, found: Halving | None) -> list[str]:
    """On how many rows what was measured, and who was dropped before."""
    notes = [f"{plan.rows} rows of each half of each task at most."]
    if found is not None and found.dropped:
        dropped = {name: rows for name, (rows, _) in found.dropped.items()}
        early = "; the budget ended this early" if found.ended_early else ""
        if some := ", ".join(f"{name} ({rows} rows)" for name, rows in dropped.items() if rows):
            notes.append(f"Dropped by successive halving on validation rows{early}: {some}.")
        if none := ", ".join(name for name, rows in dropped.items() if not rows):
            notes.append(f"Not measured, for the budget was spent: {none}.")
    return notes


def _model(chosen: Candidate, recipe: StudyRecipe, out: Path) -> tuple[Path | str, list[Path]]:
    """The choice as a checkpoint with its recipe; an input is where it is."""
    import yaml

    from mergetool.config.strict_yaml import validate
    from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
    from mergetool.merge.engine import already_made
    from mergetool.study.candidates.workspace import Workspace

    merge, model = chosen.resolved_recipe(Workspace(recipe, out)), out / MODEL
    if merge is None:
        assert chosen.path is not None  # it is no merge, so it was there
        return chosen.path, []
    plan = plan_merge(validate(MergeRecipe, merge, chosen.name))
    if model.exists() and not already_made(plan, model):
        if not (model / "mergetool.json").exists():
            raise OutputError(f"{model}: holds something that mergetool did not write", "give another --write")
        shutil.rmtree(model)  # an earlier pick's choice
    merge_to_directory(plan, model)
    text = f"# mergetool merge {RECIPE} OUT\n# {chosen.name}, chosen by mergetool pick\n"
    text += yaml.safe_dump(merge, sort_keys=False, allow_unicode=True)
    (out / RECIPE).write_text(text, encoding="utf-8")
    return model, [out / RECIPE]


def _must_be_ours(out: Path) -> None:
    """Whether it is new, or of an earlier pick."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file", "give a directory")
    if out.exists() and any(out.iterdir()) and not ((out / PLAN).exists() or (out / HALVING).exists()):
        raise OutputError(f"{out}: holds something that is not of an earlier pick", "give a new directory")
