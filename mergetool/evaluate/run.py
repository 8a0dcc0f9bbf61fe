"""One model, all its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergetool.errors import CheckpointError, RecipeError
from mergetool.evaluate.greedy import greedy, is_hit
from mergetool.evaluate.interval import bootstrap, ratio
from mergetool.evaluate.logprobs import completion_log_probs
from mergetool.evaluate.tasks import Prepared, Task, prepare

if TYPE_CHECKING:
    import torch


def load_model(source: str | Path, device: str | None = None, dtype: str | None = None) -> Any:
    """A causal language model in evaluation mode.

    Args:
        source: a checkpoint directory or a Hub id.
        device: "cpu", "cuda", ...; None: a GPU where there is one.
        dtype: a torch type's name; None: float32 on the CPU (exact, and faster there), the checkpoint's own on a GPU.

    Raises:
        CheckpointError: transformers cannot make a model of it; its reason is in the message.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or ("float32" if device == "cpu" else "auto")
    _must_exist(source)
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # one bar for each file of each candidate says nothing to anybody
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{source}: {error}", "give a causal language model that transformers can load") from None
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

    _must_exist(source)
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, ImportError) as error:
        hint = "put the tokenizer files beside the weights"
        raise CheckpointError(f"{source}: no tokenizer: {error}", hint) from None


def _must_exist(source: str | Path) -> None:
    if isinstance(source, Path) and not (source / "config.json").is_file():
        what = "no config.json" if source.is_dir() else "no such directory"
        raise CheckpointError(f"{source}: {what}", "give a checkpoint directory as save_pretrained writes it")


def reference_scores(model: Any, prepared: Prepared, pad_id: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the chosen and of the rejected sides, nats; float64 tensors of shape (rows,)."""
    both = completion_log_probs(model, [side for pair in prepared.pairs for side in pair], pad_id)
    return both[0::2], both[1::2]


def measure(
    model: Any, prepared: Prepared, tokenizer: Any, reference: tuple[torch.Tensor, torch.Tensor] | None = None, seed: int = 0
) -> dict[str, dict]:
    """Every metric of one task.

    Args:
        reference: what `reference_scores` gave for the SFT model; needed by reward metrics.
        seed: of the bootstrap.

    Returns:
        Per metric name: value, low, high (95 % bootstrap interval over rows), n (rows), unit, higher_is_better, and
        rows, a (numerator, denominator) pair of lists whose sums' ratio is the value.
    """
    pad_id = tokenizer.pad_token_id or 0
    passes: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    found = {}
    for row in prepared.metrics:
        if row.needs not in passes:
            passes[row.needs] = _PASSES[row.needs](model, prepared, tokenizer, pad_id, reference)
        top, bottom = passes[row.needs][row.name]
        low, high = bootstrap(top, bottom, seed)
        found[row.name] = {
            "value": ratio(top, bottom),
            "low": low,
            "high": high,
            "n": len(top),
            "unit": row.unit,
            "higher_is_better": row.higher_is_better,
            "rows": (top, bottom),
        }
    return found


def _pair_margins(model, prepared, tokenizer, pad_id, reference):
    if reference is None:
        raise RecipeError(
            f"{prepared.task.name}: reward metrics compare with a reference model", "give the SFT model as the reference"
        )
    chosen, rejected = reference_scores(model, prepared, pad_id)
    margin = prepared.task.beta * ((chosen - reference[0]) - (rejected - reference[1]))
    ones = [1.0] * len(margin)
    share = ((margin > 0).double() + 0.5 * (margin == 0).double()).tolist()
    return {"preference_accuracy": (share, ones), "reward_margin": (margin.tolist(), ones)}


def _completion_nll(model, prepared, tokenizer, pad_id, reference):
    total = completion_log_probs(model, prepared.completions, pad_id)
    return {"nll": ((-total).tolist(), [float(one.length) for one in prepared.completions])}


def _greedy_hits(model, prepared, tokenizer, pad_id, reference):
    answers = greedy(model, tokenizer, prepared.prompts, prepared.max_new_tokens, prepared.stop_at_newline)
    hits = [float(is_hit(text, finished, row)) for (text, finished), row in zip(answers, prepared.rows, strict=True)]
    return {"exact_match": (hits, [1.0] * len(hits))}


_PASSES = {"pair_margins": _pair_margins, "completion_nll": _completion_nll, "greedy_hits": _greedy_hits}


def evaluate(
    model: Any,
    tasks: Sequence[Task],
    reference: Any = None,
    tokenizer: Any = None,
    device: str | None = None,
    dtype: str | None = None,
) -> dict[str, dict]:
    """Reward and tax of one model.

    Args:
        model: a checkpoint directory, a Hub id, or a live transformers model.
        tasks: what to measure.
        reference: the SFT model, as `model`; needed by tasks with reward metrics.
        tokenizer: needed for a live model; else the checkpoint's own.
        device, dtype: see `load_model`; used for what is loaded here.

    Returns:
        `TASK.METRIC` -> what `measure` gives, plus left_out, the rows that did not fit into max_length.

    Raises:
        MergetoolError: a model, a tokenizer, a task or its data cannot be used.
    """
    if tokenizer is None:
        if not isinstance(model, str | Path):
            raise RecipeError("a live model needs its tokenizer", "pass tokenizer=")
        tokenizer = load_tokenizer(model)
    prepared = [prepare(task, tokenizer) for task in tasks]
    pad_id = tokenizer.pad_token_id or 0
    with_pairs = [one for one in prepared if one.pairs]
    scores: dict[str, tuple] = {}
    if with_pairs and reference is not None:
        # one model in memory at a time
        judge = load_model(reference, device, dtype) if isinstance(reference, str | Path) else reference
        scores = {one.task.name: reference_scores(judge, one, pad_id) for one in with_pairs}
        del judge
    live = load_model(model, device, dtype) if isinstance(model, str | Path) else model
    found = {}
    for one in prepared:
        for name, value in measure(live, one, tokenizer, scores.get(one.task.name)).items():
            found[f"{one.task.name}.{name}"] = value | {"left_out": one.left_out}
    return found
