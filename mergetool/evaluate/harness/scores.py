"""Scores of lm-evaluation-harness: its own numbers, with the bootstrap intervals over rows that it does not give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

from mergetool.errors import RecipeError
from mergetool.evaluate.harness.names import Asked
from mergetool.evaluate.interval import Columns, percentiles, replicates
from mergetool.evaluate.metrics.base import Metric

SLOW_RESAMPLES = 100  # of statistics that are no mean over rows, such as BLEU; the harness draws as many


def score_of(
    one: Asked, metric: Metric, first: str, results: Any, loaded: dict[str, Any], seed: int
) -> tuple[dict[str, Any], Any]:
    """One column of the harness's results.

    Args:
        one: what was asked for.
        metric: its column.
        first: the task's first metric, meant where none is named.
        results: what `lm_eval.evaluator.evaluate` gave, with its samples.
        loaded: the `tasks` and `groups` that it was given.
        seed: of the bootstrap; each column draws its rows apart from the others.

    Returns:
        The score as `mergetool.evaluate.measure` gives it (the value is the harness's own, groups averaged as it
        averages them), with `by`, the value of each task of a group, and rows where it is a mean over documents; and its
        bootstrap replicates.

    Raises:
        RecipeError: the task gave no such metric.
    """
    values = results["results"][one.task]
    key = _key(one, first, values)
    name, _, which = key.partition(",")
    group = loaded["groups"].get(one.task)
    members = [leaf.task_name for leaf in group.get_all_tasks()] if group else [one.task]
    rows = {
        member: [sample[name] for sample in results["samples"][member] if sample["filter"] == which and name in sample]
        for member in members
    }
    rows = {member: values for member, values in rows.items() if values}
    weighted = group is None or next((rule.weight_by_size for rule in group.aggregate_metric_list if rule.metric == name), True)
    aggregate = loaded["tasks"][members[0]].aggregation().get(name)
    columns = _columns(list(rows.values()), weighted, aggregate)
    stream = [seed, crc32(one.name.encode())]
    draws = replicates(columns, stream) if columns else _replicates(list(rows.values()), weighted, aggregate, stream)
    low, high = percentiles(draws)
    score = {
        "value": float(values[key]),
        "low": low,
        "high": high,
        "n": sum(map(len, rows.values())),
        "unit": metric.unit,
        "higher_is_better": metric.higher_is_better,
        **({"rows": columns} if columns else {}),
    }
    if group:
        score["by"] = {
            member: float(results["results"][member][key]) for member in members if key in results["results"][member]
        }
    return score, draws


def _key(one: Asked, first: str, values: dict[str, Any]) -> str:
    """`METRIC,FILTER` as the harness writes it."""
    keys = [key for key in values if "," in key and "_stderr," not in key]
    fitting = [key for key in keys if (one.metric or first) == key.partition(",")[0]]
    if not fitting and not one.metric:
        fitting = keys  # a function of the task's own, whose scores have names of their own
    fitting = [key for key in fitting if one.filter in (None, key.partition(",")[2])]
    if not fitting:
        asked = ":".join(part for part in (one.metric, one.filter) if part)
        known = ", ".join(key.replace(",", ":") for key in keys)
        raise RecipeError(f"tasks: '{one.task}' gives no '{asked}'", f"known: {known}")
    return fitting[0]


def _columns(parts: list[list[Any]], weighted: bool, aggregate: Callable[..., Any] | None) -> Columns | None:
    """Columns whose ratio of sums is the score, a document a row; None where it is no mean over documents."""
    import numpy as np
    from lm_eval.api.metrics import mean

    numeric = all(isinstance(value, int | float | np.number) for part in parts for value in part)
    if not numeric or aggregate not in (mean, None):
        return None
    weights = [1.0 if weighted else 1.0 / (len(parts) * len(part)) for part in parts for _ in part]
    flat = [float(value) for part in parts for value in part]
    return [value * weight for value, weight in zip(flat, weights, strict=True)], weights


def _replicates(parts: list[list[Any]], weighted: bool, aggregate: Callable[..., Any] | None, seed: list[int]) -> Any:
    """Bootstrap replicates of a score that is no mean over rows: of a task, or of a group, whose parts are its tasks."""
    import numpy as np

    generator = np.random.default_rng(seed)
    found = np.zeros(SLOW_RESAMPLES)
    assert aggregate is not None
    sizes = np.array([len(part) if weighted else 1 for part in parts], dtype=np.float64)
    for at in range(SLOW_RESAMPLES):
        scores = [aggregate([part[row] for row in generator.integers(0, len(part), len(part))]) for part in parts]
        found[at] = float(np.dot(sizes, scores) / sizes.sum())
    return found


def average(asked: list[Asked], metrics: list[Metric], found: dict[str, dict[str, Any]], drawn: list[Any]) -> dict[str, Any]:
    """Mean over tasks of the share of the best score that each reaches; tasks are drawn independently.

    `by` has the mean of each category of a suite, else the share of each task.
    """
    import numpy as np

    best = [float(metric.perfect or 1.0) for metric in metrics]
    shares = [found[metric.name]["value"] / top for metric, top in zip(metrics, best, strict=True)]
    most = max(len(draws) for draws in drawn)
    low, high = percentiles(np.mean([np.resize(draws, most) / top for draws, top in zip(drawn, best, strict=True)], axis=0))
    by: dict[str, list[float]] = {}
    for one, share in zip(asked, shares, strict=True):
        by.setdefault(one.category or one.name, []).append(share)
    rows = [found[metric.name].get("rows") for metric in metrics]
    return {
        **({"rows": _together(rows, best)} if all(rows) else {}),
        "value": float(np.mean(shares)),
        "low": low,
        "high": high,
        "n": sum(found[metric.name]["n"] for metric in metrics),
        "unit": "mean share",
        "higher_is_better": True,
        "by": {name: float(np.mean(some)) for name, some in by.items()},
    }


def _together(rows: list[Any], best: list[float]) -> Columns:
    """Columns whose ratio of sums is the mean over tasks of the share of the best score."""
    totals = [sum(weights) * len(rows) for _, weights in rows]
    return (
        [value / (total * top) for (values, _), total, top in zip(rows, totals, best, strict=True) for value in values],
        [weight / total for (_, weights), total in zip(rows, totals, strict=True) for weight in weights],
    )
