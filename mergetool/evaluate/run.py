"""One model, all its metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from mergetool.architecture.context import learned_positions
from mergetool.config.sources import resolve_source
from mergetool.errors import RecipeError
from mergetool.evaluate.harness import Harness, HarnessTask
from mergetool.evaluate.instruments import Instruments
from mergetool.evaluate.interval import STATISTICS, bootstrap
from mergetool.evaluate.paired import clusters_of
from mergetool.evaluate.passes import Passes, ReferenceScores, refer, wants_model, wants_reference, without_reference
from mergetool.evaluate.tasks import Prepared, Task, prepare
from mergetool.hub.loading import load_model, load_tokenizer


def measure(
    model: Any,
    prepared: Prepared,
    tokenizer: Any,
    reference: ReferenceScores | None = None,
    seed: int = 0,
    instruments: Instruments | None = None,
) -> dict[str, dict]:
    """Every metric of one task.

    Args:
        reference: what `refer` gave for the SFT model; needed by metrics that compare with it.
        seed: of the bootstrap.
        instruments: keeps reward models and judges from one call to the next.

    Returns:
        Per metric name: value, low, high (95 % bootstrap interval over rows), n (rows), unit, higher_is_better, and
        rows, the columns that the metric's statistic is taken of, an entry per row; of metrics that read answers, answers,
        the greedy answer to each row. `win_rate` has without_verdict too: the judge's replies that held none.

    Raises:
        RecipeError: a metric compares with a reference that is not there; a judge cannot be asked.
    """
    taken = Passes(model, prepared, tokenizer, reference, instruments or Instruments())
    found = {}
    for row in prepared.metrics:
        assert row.measure is not None  # only benchmarks of the harness have none, and no task names one
        measured = row.measure(taken)
        columns, statistic = measured.columns, STATISTICS[row.statistic]
        low, high = bootstrap(columns, seed, statistic=statistic)
        found[row.name] = {
            "value": float(statistic(*columns)),
            "low": low,
            "high": high,
            "n": len(columns[0]),
            "unit": row.unit,
            "higher_is_better": row.higher_is_better,
            "rows": columns,
            **({"answers": taken.texts} if row.reads_answers else {}),
            **measured.remarks,
        }
    return found


def evaluate(
    model: Any,
    tasks: Sequence[Task | HarnessTask],
    reference: Any = None,
    tokenizer: Any = None,
    device: str | None = None,
    dtype: str | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> dict[str, dict[str, Any]]:
    """Reward and tax of one model.

    Args:
        model: a checkpoint directory, ``lab:NAME``, a Hub id, or a live transformers model.
        tasks: what to measure: data rows, or tasks of lm-evaluation-harness.
        reference: the SFT model, as `model`; needed by metrics that compare with it.
        tokenizer: needed for a live model; else the checkpoint's own.
        device, dtype: see `load_model`; used for what is loaded here.
        progress: told (steps done, steps in all, what is being done).

    Returns:
        `TASK.METRIC` -> what `measure` gives, plus left_out, the rows that did not fit into max_length; clusters, which rows
        are of one prompt or document; and beside answers their prompts.

    Raises:
        MergetoolError: a model, a tokenizer, a task or its data cannot be used.
    """
    model, reference = (resolve_source(one, ".") if isinstance(one, str) else one for one in (model, reference))
    if tokenizer is None:
        if not isinstance(model, str | Path):
            raise RecipeError("a live model needs its tokenizer", "pass tokenizer=")
        tokenizer = load_tokenizer(model)
    positions = learned_positions(_config_of(model))
    prepared = [prepare(task, tokenizer, positions) for task in tasks if isinstance(task, Task)]
    public = [Harness(task) for task in tasks if isinstance(task, HarnessTask)]
    comparing = [one for one in prepared if wants_reference(one) or wants_model(one)]
    if comparing and reference is None:
        raise without_reference(comparing[0])
    steps = count()
    total = len(comparing) + len(prepared) + len(public)
    instruments = Instruments(device, dtype)
    for one in public:
        one.load()  # what is misspelt should not show after an hour of measuring
    instruments.make_ready(one.task for one in prepared)
    references: dict[str, ReferenceScores] = {}
    if comparing:
        # one model in memory at a time, but where a metric holds on to the second
        sft = load_model(reference, device, dtype) if isinstance(reference, str | Path) else reference
        for one in comparing:
            progress(next(steps), total, f"{one.task.name}, the SFT model")
            references[one.task.name] = refer(sft, one, tokenizer)
        del sft
    live = load_model(model, device, dtype) if isinstance(model, str | Path) else model
    found = {}
    for one in prepared:
        progress(next(steps), total, one.task.name)
        for name, value in measure(live, one, tokenizer, references.get(one.task.name), instruments=instruments).items():
            own = {"left_out": one.left_out, "clusters": clusters_of(one.rows)}
            if "answers" in value:
                own["prompts"] = [row["prompt"] for row in one.rows]
            found[f"{one.task.name}.{name}"] = value | own
    for one in public:
        progress(next(steps), total, one.task.name)
        for name, value in one.measure(live, tokenizer).items():
            found[f"{one.task.name}.{name}"] = value | {"left_out": 0}
    return found


def _config_of(model: Any) -> dict[str, Any]:
    """What config.json says of a checkpoint, or of a live model."""
    from mergetool.hub.references import open_layout  # it takes torch with it

    return open_layout(model).config if isinstance(model, str | Path) else model.config.to_dict()
