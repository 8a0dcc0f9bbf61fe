"""One model, all its metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from mergetool.config.sources import resolve_source
from mergetool.errors import CheckpointError, RecipeError
from mergetool.evaluate.harness import Harness, HarnessTask
from mergetool.evaluate.instruments import Instruments
from mergetool.evaluate.interval import STATISTICS, bootstrap
from mergetool.evaluate.passes import Passes, Reference, refer, wants_model, wants_reference, without_reference
from mergetool.evaluate.tasks import Prepared, Task, prepare


def load_model(source: str | Path, device: str | None = None, dtype: str | None = None) -> Any:
    """A causal language model in evaluation mode.

    Args:
        source: a checkpoint directory or a Hub id.
        device: "cpu", "cuda", ...; None: a GPU where there is one.
        dtype: a torch type's name; None: float32 on the CPU (exact, and faster there), the checkpoint's own on a GPU.

    Raises:
        CheckpointError: transformers cannot make a model of it; its reason is in the message.
    """
    from transformers import AutoModelForCausalLM

    return loaded(AutoModelForCausalLM, source, device, dtype, "give a causal language model that transformers can load")


def loaded(kind: Any, source: str | Path, device: str | None, dtype: str | None, hint: str) -> Any:
    """What transformers' class `kind` makes of a checkpoint, in evaluation mode; see `load_model`."""
    import torch
    from transformers.utils import logging

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or ("float32" if device == "cpu" else "auto")
    source = _directory(source)
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # one bar for each file of each candidate says nothing to anybody
    try:
        model = kind.from_pretrained(source, dtype=dtype, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{source}: {error}", hint) from None
    finally:
        if bar:
            logging.enable_progress_bar()
    return model.to(device).eval().requires_grad_(False)


def load_tokenizer(source: str | Path) -> Any:
    """The tokenizer of a checkpoint.

    Raises:
        CheckpointError: there is none.
    """
    from transformers import AutoTokenizer

    source = _directory(source, weights=False)
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        hint = "put the tokenizer files beside the weights"
        raise CheckpointError(f"{source}: no tokenizer: {error}", hint) from None


def _directory(source: str | Path, weights: bool = True) -> Path:
    """Where a checkpoint lies; of a Hub id, at the commit that this run has pinned, and never pickled."""
    from mergetool.hub.references import local_directory, local_tokenizer

    found = local_directory(source) if weights else local_tokenizer(source)
    if not (found / "config.json").is_file():
        what = "no config.json" if found.is_dir() else "no such directory"
        raise CheckpointError(f"{source}: {what}", "give a checkpoint directory as save_pretrained writes it")
    return found


def measure(
    model: Any,
    prepared: Prepared,
    tokenizer: Any,
    reference: Reference | None = None,
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
        rows, the columns that the metric's statistic is taken of, an entry per row. `win_rate` has without_verdict too:
        the judge's replies that held none.

    Raises:
        RecipeError: a metric compares with a reference that is not there; a judge cannot be asked.
    """
    taken = Passes(model, prepared, tokenizer, reference, instruments or Instruments())
    found = {}
    for row in prepared.metrics:
        columns = taken.columns(row)
        statistic = STATISTICS[row.statistic]
        low, high = bootstrap(columns, seed, statistic=statistic)
        found[row.name] = {
            "value": float(statistic(*columns)),
            "low": low,
            "high": high,
            "n": len(columns[0]),
            "unit": row.unit,
            "higher_is_better": row.higher_is_better,
            "rows": columns,
            **taken.remarks.get(row.name, {}),
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
        `TASK.METRIC` -> what `measure` gives, plus left_out, the rows that did not fit into max_length.

    Raises:
        MergetoolError: a model, a tokenizer, a task or its data cannot be used.
    """
    model, reference = (resolve_source(one, ".") if isinstance(one, str) else one for one in (model, reference))
    if tokenizer is None:
        if not isinstance(model, str | Path):
            raise RecipeError("a live model needs its tokenizer", "pass tokenizer=")
        tokenizer = load_tokenizer(model)
    prepared = [prepare(task, tokenizer) for task in tasks if isinstance(task, Task)]
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
    references: dict[str, Reference] = {}
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
            found[f"{one.task.name}.{name}"] = value | {"left_out": one.left_out}
    for one in public:
        progress(next(steps), total, one.task.name)
        for name, value in one.measure(live, tokenizer).items():
            found[f"{one.task.name}.{name}"] = value | {"left_out": 0}
    return found
