"""`align`: from a recipe to a trained checkpoint, resumable at any moment."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mergetool.align.along import Along
from mergetool.align.check import check_align, fingerprint
from mergetool.align.optimizer import merged_so_far
from mergetool.align.picture import draw
from mergetool.align.quiet import quiet
from mergetool.align.recipe import SAMPLING, AlignRecipe, align_recipe, load_align_recipe
from mergetool.align.result import drift, layout_fits, write_account, write_model
from mergetool.align.reward import told_prompt
from mergetool.align.rows import read_for
from mergetool.align.trainer import Report, make_trainer, stop_on_signal
from mergetool.align.training import training_config
from mergetool.align.workspace import Workspace, disk_errors
from mergetool.checkpoint.layout import read_layout, weight_hashes
from mergetool.checkpoint.writer import MANIFEST, check_output
from mergetool.config.given import recipe_given
from mergetool.errors import CheckpointError, DataError
from mergetool.hub.card import origin
from mergetool.hub.references import local_directory, open_layout
from mergetool.version import __version__


@dataclass(frozen=True)
class AlignResult:
    """What a run gave.

    Attributes:
        out: the checkpoint.
        steps: optimizer steps of the whole run.
        merging: method, K, number of merges, alpha, and `merged_total`, the part of tau_s merged in all.
        metrics: the last logged training metrics and, with `data.eval`, the metrics at the end.
        drift: distance to theta_s, see result.drift.
        seconds: of this call.
        resumed_from: the step that an interrupted run had reached.
        already_done: OUT held this very result before the call.
    """

    out: Path
    steps: int
    merging: dict[str, Any]
    metrics: dict[str, float]
    drift: dict[str, Any]
    seconds: float = 0.0
    resumed_from: int | None = None
    already_done: bool = False
    data: dict[str, str] = field(default_factory=dict)

    def as_facts(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "out": str(self.out)}


def align(
    recipe: AlignRecipe | Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    fresh: bool = False,
    report: Report | None = None,
    picture: bool = False,
    along: Sequence[float] = (),
) -> AlignResult:
    """Trains theta_s as a recipe says and writes the result under `out`, all of it or nothing.

    An interrupted call, even one that was killed, is continued by the same call: on a CPU the final weights are those
    of an uninterrupted run, bit for bit.

    Args:
        recipe: a YAML file's path, what it would say as plain values, or read already by load_align_recipe or align_recipe.
        out: a directory that does not exist yet (or is empty).
        fresh: start again instead of continuing an interrupted run.
        report: told of what happens, as (event, facts); see trainer.Report.
        picture: also write training.png: loss, reward margin, drift by layer.
        along: places in the run, shares of it below 1 or steps, whose weights are also kept, in OUT/along/step-N.

    Raises:
        RecipeError, CheckpointError, DataError, OutputError: the user's to mend; nothing is left behind.
        KeyboardInterrupt: Ctrl-C, after a checkpoint was written.
    """
    started, out = time.monotonic(), Path(out)
    recipe = recipe_given(recipe, AlignRecipe, load_align_recipe, align_recipe)
    check_align(recipe)  # TRL's config, made in it, has also joined the process group where there is one
    ranks = _ranks()
    report = report if report is not None and ranks.is_main_process else (lambda event, facts: None)
    identity = fingerprint(recipe)
    if check_output(out, None if fresh else identity):
        return _done_before(out)
    fetching = _fetching(report)
    sft = local_directory(recipe.sft, fetching)
    base = local_directory(recipe.base, fetching) if recipe.base is not None else None
    with quiet(), disk_errors(out), Workspace(out, identity, fresh, ranks) as work, stop_on_signal() as stop:
        rows, told = _rows(recipe, report)
        if ranks.num_processes > 1:
            rows = {name: _shared(data, work.directory / f"rows-{name}", ranks) for name, data in rows.items()}
        config = training_config(recipe, work.training)
        model, tokenizer = _load(recipe, sft, rows["train"])
        trainer = make_trainer(recipe, config, model, tokenizer, rows, (base, sft), stop, report)
        _preview(trainer, tokenizer, report)
        kept = Along(along, work, recipe, sft)
        kept.watch(trainer)
        resumed = _train(trainer, work, kept, report)
        if stop.asked and trainer.state.global_step < trainer.state.max_steps:
            raise KeyboardInterrupt(
                f"a checkpoint at step {trainer.state.global_step} is kept; the same command goes on from there"
            )
        made = _finish(trainer, recipe, (base, sft), work, kept, identity, told, report, picture)
    return AlignResult(**made, resumed_from=resumed, seconds=time.monotonic() - started)


def _fetching(report: Report) -> Any:
    return lambda done, total, file: report("fetch", {"done": done, "total": total, "file": file})


def _ranks() -> Any:
    """The processes of this run: one, or those that torchrun or accelerate started."""
    from accelerate import PartialState

    return PartialState()


def _rows(recipe: AlignRecipe, report: Report) -> tuple[dict[str, Any], dict[str, str]]:
    """The data sets, and what was kept and dropped in words."""
    from datasets import Dataset

    rows, told = {}, {}
    for name, place, limit in (
        ("train", recipe.train_data, recipe.data.limit),
        ("eval", recipe.eval_data, recipe.data.eval_limit),
    ):
        if place is not None:
            found, told[name] = read_for(recipe, place, limit)
            rows[name] = Dataset.from_list(found)
            report("rows", {"name": name, "told": told[name]})
    return rows, told


def _shared(data: Any, folder: Path, ranks: Any) -> Any:
    """The same rows from files that all processes see: there TRL hands its reference pass to the other ranks."""
    from datasets import load_from_disk

    if ranks.is_main_process:
        data.save_to_disk(folder)
    ranks.wait_for_everyone()
    return load_from_disk(folder)


def _load(recipe: AlignRecipe, sft: Path, rows: Any) -> tuple[Any, Any]:
    """theta_s and its tokenizer, fit for training.

    Raises:
        CheckpointError: the tokenizer lacks what training needs, or does not fit the model.
        DataError: the rows are conversations and there is no chat template.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(sft, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            sft, dtype=getattr(torch, recipe.dtype), use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{sft}: transformers cannot load it ({reason[:300]})",
            "check that it is a causal language model in its standard layout",
        ) from None
    if tokenizer.eos_token is None:
        raise CheckpointError(f"{sft}: its tokenizer has no end-of-sequence token", "set eos_token in tokenizer_config.json")
    if not layout_fits(read_layout(sft), tokenizer):
        raise CheckpointError(
            f"{sft}: its tokenizer has more tokens than its embedding has rows", "take the tokenizer that belongs to this model"
        )
    if any(isinstance(value, list) for value in rows[0].values()) and not tokenizer.chat_template:
        raise DataError(
            "data.train: the rows are conversations, and the tokenizer has no chat template",
            f"add chat_template.jinja to {sft}, or give the rows as text",
        )
    return model, tokenizer


def _preview(trainer: Any, tokenizer: Any, report: Report) -> None:
    """The first row as the model will see it: a wrong template or a doubled BOS is best seen before training."""
    row = trainer.train_dataset[0]
    if trainer.recipe.algorithm in SAMPLING:
        text = told_prompt(row["prompt"], tokenizer)
        row = {"prompt_ids": [], "input_ids": tokenizer(text, add_special_tokens=isinstance(row["prompt"], str))["input_ids"]}
    sides = {
        name: row.get("prompt_ids", []) + row[f"{name}_ids"]
        for name in ("chosen", "rejected", "completion", "input")
        if f"{name}_ids" in row
    }
    special = {name: token for name in ("bos", "eos") if (token := getattr(tokenizer, f"{name}_token_id")) is not None}
    facts = {}
    for side, ids in sides.items():
        facts[side] = {
            "text": tokenizer.decode(ids),
            "tokens": len(ids),
            **{name: ids.count(token) for name, token in special.items()},
        }
    report("preview", facts)


def _train(trainer: Any, work: Workspace, kept: Along, report: Report) -> int | None:
    """Trains, from the last whole checkpoint if there is one; returns the step that it started from.

    A checkpoint behind a step whose weights are wanted and missing is of no use.
    """
    from transformers import set_seed

    # What the constructor drew from the generators depends on caches; the run must not.
    set_seed(trainer.args.seed)
    checkpoint = work.last_checkpoint()
    if checkpoint is None or kept.lacks(checkpoint):
        trainer.train()
        return None
    step = int(checkpoint.name.rpartition("-")[2])
    report("resume", {"step": step})
    trainer.train(resume_from_checkpoint=str(checkpoint))
    return step


def _finish(
    trainer: Any,
    recipe: AlignRecipe,
    paths: tuple[Path | None, Path],
    work: Workspace,
    kept: Along,
    identity: str,
    told: dict[str, str],
    report: Report,
    picture: bool,
) -> dict[str, Any]:
    """Evaluates, writes the result, publishes it; returns the fields of AlignResult."""
    base, sft = paths
    if trainer.average is not None:
        trainer.average.put(trainer.model)
    if trainer.eval_dataset is not None:
        trainer.evaluate()
    log = trainer.state.log_history
    metrics = _last(log)
    merging = {**asdict(trainer.plan), "merged_total": merged_so_far(trainer.optimizer, recipe.merging.method)}
    moved: dict[str, Any] = {}
    # A sharded model has to be gathered by all ranks together; the others are whole on each.
    state = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    if trainer.is_world_process_zero():
        report("result", {"out": str(work.out)})
        model = trainer.accelerator.unwrap_model(trainer.model)
        if hasattr(model, "merge_and_unload"):  # LoRA: what is published is a whole model
            model = model.merge_and_unload()
        dtype = write_model(model, state, recipe, sft, work.result)
        moved = drift(work.result, sft, base)
        manifest = {
            "fingerprint": identity,
            "command": "align",
            "name": work.out.name,
            "recipe": recipe.as_written(),
            "steps": trainer.state.global_step,
            "merging": merging,
            "metrics": metrics,
            "drift": moved,
            "data": told,
            "dtype": dtype,
            **({"along": steps} if (steps := kept.publish()) else {}),
            "seeds": {"training": trainer.args.seed, "merging": recipe.merging.seed or 0},
            "inputs": {
                name: {file: header for file, (_, header) in read_layout(place).headers.items()}
                for name, place in (("base", base), ("sft", sft))
                if place is not None
            },
            "origins": [
                origin(str(name), open_layout(place))
                for name, place in ((recipe.sft_model, recipe.sft), (recipe.base_model, recipe.base))
                if place is not None
            ],
            "outputs_sha256": weight_hashes(work.result),
            "versions": _versions(),
        }
        write_account(work.result, manifest, log)
        if picture:
            draw(work.result / "training.png", log, moved["layers"], f"{work.out.name}: {trainer.plan.method}")
        work.publish()
    trainer.accelerator.wait_for_everyone()
    return {
        "out": work.out,
        "steps": trainer.state.global_step,
        "merging": merging,
        "metrics": metrics,
        "drift": moved,
        "data": told,
    }


def _last(log: list[dict[str, Any]]) -> dict[str, float]:
    """The last value of each logged number, without what depends on the machine or on where the run was resumed."""
    metrics: dict[str, float] = {}
    for line in log:
        metrics.update({key: value for key, value in line.items() if isinstance(value, (int, float))})
    passing = ("step", "total_flos", "train_loss", "num_tokens", "eval_num_tokens", "drift")  # the manifest has its own drift
    return {
        k: v
        for k, v in metrics.items()
        if k not in passing and not k.startswith("drift/") and not k.endswith(("_runtime", "_per_second", "step_time"))
    }


def _done_before(out: Path) -> AlignResult:
    manifest = json.loads((out / MANIFEST).read_bytes())
    known = {key: manifest[key] for key in ("steps", "merging", "metrics", "drift", "data")}
    return AlignResult(out=out, already_done=True, **known)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {
        "mergetool": __version__,
        **{name: version(name) for name in ("torch", "transformers", "trl", "datasets", "accelerate")},
    }
