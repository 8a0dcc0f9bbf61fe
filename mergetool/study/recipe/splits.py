"""The data of the metrics: read and tokenised once, and no row in both splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mergetool.errors import DataError
from mergetool.evaluate.harness import HarnessTask
from mergetool.evaluate.harness.names import identity
from mergetool.evaluate.judge import WORDING
from mergetool.evaluate.metrics import METRICS
from mergetool.evaluate.paired import DOCUMENT_KEYS, clusters_of
from mergetool.evaluate.tasks import Prepared, Task, prepare, read_for
from mergetool.fingerprints import checkpoint_identity, data_identity, digest
from mergetool.study.recipe.columns import SPLITS, entries
from mergetool.study.recipe.metric_entries import MetricEntry, Splits
from mergetool.study.recipe.study_recipe import StudyRecipe

SCORING = 1  # raised when the same candidate on the same rows would score differently: old results are then not reused


def metrics_identity(recipe: StudyRecipe, identify: Callable[[Path | str], str] = checkpoint_identity) -> str:
    """A hash of everything that decides what a score means: metrics, limits, data, benchmarks, judges, the reference.

    What only decides how fast a score comes (batches, concurrency, timeouts) and where a key is found is left out.
    """
    parts: list[Any] = [SCORING]
    for entry in entries(recipe):
        # their order is a matter of taste; what an entry does not use is left out, so that a new key changes no old hash
        settings = {**entry.model_dump(include=OLD_KEYS), "metrics": sorted(entry.metrics)}
        if entry.tasks:
            task = recipe.harness_task(entry)
            parts.append(
                [settings, sorted(entry.tasks), entry.num_fewshot, identity(sorted(task.asked, key=str), task.include)]
            )
            continue
        if entry.reward_model:
            source = recipe.source(entry.reward_model)
            settings["reward_model"] = identify(source)
        if entry.judge:
            settings["judge"] = [entry.judge.base_url, entry.judge.model, WORDING]
        assert entry.data is not None  # the recipe has seen to it
        if isinstance(entry.data, str):
            parts.append([settings, ["halves of", data_identity(recipe.source(entry.data))]])
            continue
        parts.append([settings, [data_identity(recipe.source(getattr(entry.data, split))) for split in SPLITS]])
    return digest(parts)


OLD_KEYS = {"name", "limit", "beta", "max_length", "max_new_tokens", "chat", "template"}


def harness_tasks(recipe: StudyRecipe) -> list[HarnessTask]:
    """The public benchmarks of a study, entry by entry."""
    return [recipe.harness_task(entry) for entry in entries(recipe) if entry.tasks]


def read_tasks(recipe: StudyRecipe) -> dict[str, list[Task]]:
    """The tasks of each split that are taken on data files.

    Raises:
        DataError: a file is missing, empty or has an unusable row, or a row is in both splits of an entry.
    """
    found: dict[str, list[Task]] = {split: [] for split in SPLITS}
    for entry in entries(recipe):
        if entry.data is None:
            continue
        if isinstance(entry.data, str):
            rows = in_halves(read_for(entry.metrics, recipe.source(entry.data)), entry.data, entry.limit)
        else:
            rows = {split: read_for(entry.metrics, recipe.source(getattr(entry.data, split)), entry.limit) for split in SPLITS}
            _no_row_in_both(entry, rows)
        for split in SPLITS:
            found[split].append(
                Task(
                    entry.label,
                    tuple(entry.metrics),
                    rows[split],
                    beta=entry.beta,
                    max_length=entry.max_length,
                    max_new_tokens=entry.max_new_tokens,
                    chat=entry.chat,
                    template=entry.template,
                    reward_model=recipe.source(entry.reward_model) if entry.reward_model else None,
                    judge=entry.judge.settings() if entry.judge else None,
                )
            )
    return found


def in_halves(rows: list[dict], called: str, limit: int | None = None) -> dict[str, list[dict]]:
    """The rows of one file in two halves, the same ones every time; rows of one prompt or document stay together.

    Args:
        limit: rows of each half at most; they are in an order of their own, so that the first ones are any.

    Raises:
        DataError: there is one prompt or document alone.
    """
    clusters = clusters_of(rows)
    members: dict[int, list[dict]] = {}
    for cluster, row in zip(clusters, rows, strict=True):
        members.setdefault(cluster, []).append(row)
    order = sorted(members.values(), key=lambda some: digest([some[0].get(key) for key in (*DOCUMENT_KEYS, *_CONTENT)]))
    if len(order) < 2:
        raise DataError(f"{called}: one prompt or document cannot be cut in two halves", "give more rows, or two files")
    halves = {"validation": order[: len(order) // 2], "test": order[len(order) // 2 :]}
    return {split: [row for some in halves[split] for row in some][:limit] for split in SPLITS}


_CONTENT = ("prompt", "chosen", "rejected", "completion")


def _no_row_in_both(entry: MetricEntry, rows: dict[str, list[dict]]) -> None:
    """Rows are told apart by what is measured: an answer that the model writes depends on the prompt alone."""
    only_prompts = any(METRICS[name].rows == "prompts" for name in entry.metrics)
    keys = ("prompt",) if only_prompts else _CONTENT
    assert isinstance(entry.data, Splits)  # there are two files
    seen = {digest([row.get(key) for key in keys]) for row in rows["validation"]}
    shared = [at for at, row in enumerate(rows["test"], 1) if digest([row.get(key) for key in keys]) in seen]
    if shared:
        raise DataError(
            f"{entry.label}: {len(shared)} rows of the test split are in the validation split too "
            f"(the first is row {shared[0]} of {entry.data.test})",
            "what chooses must not report: give splits that share no row",
        )


def prepare_all(recipe: StudyRecipe, tokenizer: Any, positions: int | None = None) -> dict[str, list[Prepared]]:
    """`read_tasks`, tokenised; `positions` is the longest sequence that the models can read, None: any."""
    return {split: [prepare(task, tokenizer, positions) for task in tasks] for split, tasks in read_tasks(recipe).items()}
