"""Tasks of lm-evaluation-harness by name: what each measures, known from its YAML without its data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any

from mergetool.errors import RecipeError
from mergetool.evaluate.harness.index import children, entry_of, leaves, local_files
from mergetool.evaluate.harness.suites import SUITES
from mergetool.evaluate.metrics.base import Metric

AVERAGE = "average"
_COLON = re.compile(r"(?<!:):(?!:)")  # `::` joins a group and its child in the harness's own names
_SHARE, _HUNDRED = ("share of rows", 1.0), "{}, 0 to 100"
# metric -> (unit, best value where a score is a share of it)
UNITS: dict[str, tuple[str, float | None]] = {
    **dict.fromkeys(("acc", "acc_norm", "acc_mutual_info", "exact_match", "em", "pass@1", "pass_at_1", "pass_at_k"), _SHARE),
    **dict.fromkeys(("prompt_level_strict_acc", "prompt_level_loose_acc"), ("share of prompts", 1.0)),
    **dict.fromkeys(("inst_level_strict_acc", "inst_level_loose_acc"), ("share of instructions", 1.0)),
    "f1": ("F1, 0 to 1", 1.0),
    "bleu": ("BLEU, 0 to 100", 100.0),
    "chrf": ("chrF, 0 to 100", 100.0),
    "ter": ("TER, edits per 100 words", None),
    "perplexity": ("perplexity per token", None),
    "word_perplexity": ("perplexity per word", None),
    "byte_perplexity": ("perplexity per byte", None),
    "bits_per_byte": ("bits/byte", None),
}
OF_A_HUNDRED = frozenset({"squadv2"})  # tasks whose scores are percentages whatever their name
UNKNOWN_UNIT: tuple[str, float | None] = ("as the task gives it", None)


@dataclass(frozen=True)
class Asked:
    """A task as a recipe or a suite names it.

    Attributes:
        name: of the column.
        task: in the harness: a task or a group.
        metric: None: the task's first.
        filter: None: the metric's first.
        num_fewshot: what the suite says; None: what the task says.
        runs_code: whether the suite knows that what the model writes is executed.
        category: of the benchmark in its suite.
    """

    name: str
    task: str
    metric: str | None = None
    filter: str | None = None
    num_fewshot: int | None = None
    runs_code: bool = False
    category: str | None = None


def expand(names: Sequence[str]) -> list[Asked]:
    """Tasks and suites as recipes name them, suites opened.

    Raises:
        RecipeError: a name has more than TASK:METRIC:FILTER, or a column would appear twice.
    """
    found: list[Asked] = []
    for name in names:
        if name in SUITES:
            for one in SUITES[name].benchmarks:
                task, metric, which = _parts(one.task)
                found.append(Asked(task, task, metric, which, one.num_fewshot, one.runs_code, one.category))
        else:
            found.append(Asked(name, *_parts(name)))
    columns = [one.name for one in found]
    if twice := next((name for name in columns if columns.count(name) > 1), None):
        raise RecipeError(f"tasks: '{twice}' appears twice", "name each task once; a suite holds several")
    return found


def not_run(names: Sequence[str]) -> dict[str, list[str]]:
    """What of the suites among `names` is not run and why, by suite; empty where everything is."""
    return {name: SUITES[name].not_run for name in names if name in SUITES and SUITES[name].not_run}


def _parts(name: str) -> tuple[str, str | None, str | None]:
    parts = _COLON.split(name)
    if len(parts) > 3 or not all(parts):
        raise RecipeError(f"tasks: '{name}' is no task", "write TASK, TASK:METRIC or TASK:METRIC:FILTER")
    task, metric, which = (*parts, None, None)[:3]
    return str(task), metric, which


def described(asked: Sequence[Asked], include: Sequence[Path] = (), side: str = "tax") -> list[Metric]:
    """The columns that these tasks give: their average first, where there are several on one scale.

    Args:
        include: directories of local YAML tasks, which take precedence.

    Raises:
        RecipeError: the harness is not installed, or has no such task or metric; the nearest name is given.
    """
    found = [_metric(one, include, side) for one in asked]
    if has_average(found):
        about = "mean of the tasks' scores, each as a share of the best score there is"
        found.insert(0, Metric(AVERAGE, side, "mean share", True, "harness", "average of the benchmarks", about, perfect=1.0))
    return found


def has_average(metrics: Sequence[Metric]) -> bool:
    """Whether scores can be averaged: several of them, each a share of a best score."""
    return len(metrics) > 1 and all(one.higher_is_better and one.perfect for one in metrics)


def _metric(one: Asked, include: Sequence[Path], side: str) -> Metric:
    directions = directions_of(one.task, include)
    name = one.metric or next(iter(directions))
    if one.metric and one.metric not in directions and not _names_scores_itself(one.task, include):
        close = get_close_matches(one.metric, directions, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(directions)}"
        raise RecipeError(f"tasks: '{one.task}' has no metric '{one.metric}'", hint)
    unit, perfect = UNITS.get(name, UNKNOWN_UNIT)
    if one.task in OF_A_HUNDRED:
        unit, perfect = _HUNDRED.format(name), 100.0
    short = f"{one.task} {name}"
    about = f"{name} of the task {one.task} of lm-evaluation-harness"
    return Metric(one.name, side, unit, directions.get(name, True), "harness", short, about, perfect=perfect)


def _names_scores_itself(name: str, include: Sequence[Path]) -> bool:
    """Whether a function of the task's own gives its scores their names (HumanEval's `pass@1`): known when it runs."""
    listed = (entry_of(name, include).cfg or {}).get("metric_list") or []
    return any("/" in str(one.get("metric")) for one in listed)


def directions_of(name: str, include: Sequence[Path]) -> dict[str, bool]:
    """Metric -> whether higher is better, in the task's own order; of a group, what it aggregates.

    Raises:
        RecipeError: there is no such task, or what it measures cannot be known before it runs.
    """
    entry = entry_of(name, include)
    if entry.kind.name == "GROUP":
        listed = entry.cfg.get("aggregate_metric_list") or []
        listed = [listed] if isinstance(listed, dict) else listed
        if not listed:
            raise RecipeError(
                f"tasks: the group '{name}' has no score of its own", f"name its tasks: {', '.join(children(entry)[:6])}"
            )
        leaf = next(leaves(name, include), None)
        below = directions_of(leaf.name, include) if leaf else {}
        return {one["metric"]: below.get(one["metric"], True) for one in listed}
    if entry.kind.name == "PY_TASK":
        return _python_directions(name, entry)
    from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY, is_higher_better

    config = entry.cfg or {}
    listed = config.get("metric_list")
    if listed is None:
        return {one: _is_better(is_higher_better(one)) for one in DEFAULT_METRIC_REGISTRY[str(config.get("output_type"))]}
    found = {}
    for one in listed:
        # a function of the task's own is named by its path until it is loaded
        metric = str(one["metric"]).rsplit("/", 1)[-1].rpartition(".")[2]
        direction = one.get("higher_is_better")
        found[metric] = _is_better(is_higher_better(metric) if direction is None else direction)
    return found


def _is_better(direction: bool | None) -> bool:
    return True if direction is None else bool(direction)


def _python_directions(name: str, entry: Any) -> dict[str, bool]:
    """What a task written in Python says of itself; only its class is loaded."""
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        kind = load_yaml(entry.yaml_path)["class"]
        return {str(key): _is_better(value) for key, value in kind.higher_is_better(kind.__new__(kind)).items()}
    except Exception as error:  # whatever that file does
        raise RecipeError(
            f"tasks: '{name}' cannot be loaded ({type(error).__name__}: {error})", "choose another task"
        ) from None


def runs_code(one: Asked, include: Sequence[Path]) -> bool:
    """Whether a task executes what the model writes."""
    return one.runs_code or any((leaf.cfg or {}).get("unsafe_code") for leaf in leaves(one.task, include))


def identity(asked: Sequence[Asked], include: Sequence[Path]) -> list[Any]:
    """What decides these tasks' scores beside the model: the harness's version, their YAML, and their local files.

    Raises:
        RecipeError: as `entry_of`.
    """
    from importlib.metadata import version

    found: list[Any] = [version("lm_eval")]
    for one in asked:
        whole = entry_of(one.task, include)
        if whole.kind.name == "GROUP":  # how its tasks are averaged
            found.append([one.metric, one.filter, str(sorted(whole.cfg.items(), key=str))])
        for entry in leaves(one.task, include):
            folder = Path(entry.yaml_path).parent
            own = any(folder.is_relative_to(base.resolve()) or folder.is_relative_to(base) for base in include)
            files = [*local_files(entry), *sorted(folder.glob("*.py"))] if own else []
            # paths inside the installation say nothing of the task
            settings = str(sorted(entry.cfg.items(), key=str)).replace(str(folder), "")
            found.append(
                [one.metric, one.filter, entry.name, settings, [sha256(file.read_bytes()).hexdigest() for file in files]]
            )
    return found
